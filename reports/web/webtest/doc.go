// Package webtest drives the dashboard in Chromium for the tests of other packages, and keeps what the browser had to
// complain about. It starts a browser and goroutines that end with the test.
package webtest
