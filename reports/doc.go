// Package reports turns the events of a period into one model of CSF 2.0 coverage, and the model into a
// workbook, a web page, a PDF, OSCAL documents or JSON.
//
// Collect asks the event store by a small interface and evaluates with the functions of package csf; every
// rendering shows that one model, so no two of them can differ in a number or a state. Equal models give
// equal bytes. What could not be read is a gap and never counts as good. Text from the outside is never a
// formula in the workbook and is escaped in the page; the page loads nothing and runs no script.
//
// The package starts no goroutine and reads no clock: times come in with the input, bytes go to the caller's writer.
// The workbook goes through temporary files, so that memory does not grow with its rows; a PDF is printed by a browser
// that it starts and ends. It does not keep reports and does not sign them.
package reports
