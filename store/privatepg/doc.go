// Package privatepg runs private PostgreSQL clusters from the PostgreSQL server
// programs that are installed on the machine: for the event store when no
// address is configured, for the demonstration and for tests.
//
// It guarantees that a server listens on 127.0.0.1 and a Unix socket in a
// directory of mode 0700 only, that nobody reaches it over TCP without a SCRAM
// password (unless Options.HBA says so), that a server which an earlier, killed
// run left in the same directory is stopped before a new one starts, and that
// Stop and Kill leave no process behind. PostgreSQL refuses to run as root:
// started by root, its programs run as the user postgres, else nobody.
//
// Each running server has one goroutine, which waits for the postmaster's end;
// Stop and Kill wait for it.
//
// It does not install PostgreSQL, upgrade data directories between major
// versions, take backups or decide about failover.
package privatepg
