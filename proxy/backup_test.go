package proxy

import "testing"

// TestBackupCommand: PostgreSQL's walsender reads the first word, whatever stands around it.
func TestBackupCommand(t *testing.T) {
	for text, want := range map[string]string{
		"BASE_BACKUP": backupBase,
		" \n base_backup ( LABEL 'x', PROGRESS )": backupBase,
		"BASE_BACKUP;": backupBase,
		"START_REPLICATION SLOT \"s\" LOGICAL 0/0":       backupStream,
		"start_replication 0/3000000 TIMELINE 1":         backupStream,
		"IDENTIFY_SYSTEM":                                "",
		"BASE_BACKUPS":                                   "",
		"SELECT 'BASE_BACKUP'":                           "",
		"/* BASE_BACKUP */ SELECT 1":                     "",
		"CREATE_REPLICATION_SLOT x PHYSICAL RESERVE_WAL": "",
		"": "",
	} {
		if got := backupCommand([]byte(text)); got != want {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	}
}
