// Package csf is the vocabulary of the product: the NIST Cybersecurity Framework 2.0 catalogue,
// the mapping of its subcategories to controls, the function that turns facts into states, and the
// events, kinds and reasons by which every other package says what happened.
//
// It guarantees that the tables are total: every kind supports a control or is marked operational,
// every control has a kind, every reason has a kind, an SQLSTATE where a client is told, and a metric
// label. It starts no goroutine and imports no other package of the module. It does no input or output
// but LoadCatalog, which reads the file that the user names.
package csf
