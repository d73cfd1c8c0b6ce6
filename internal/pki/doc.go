// Package pki makes certificates for what lives no longer than a run: demonstrations, benchmarks, self-tests and tests.
// Keys are ECDSA on P-256 unless the caller brings one, serial numbers random, and every certificate is for the loopback
// address and counts from an hour ago for a day unless it is edited.
//
// It is not for deployments: nobody may trust what it signs. It starts no goroutine.
package pki
