package api

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
)

// SelfTestPerson is the name of the reader as whom self-tests call the API. Its calls are marked as a self-test's.
const SelfTestPerson = "self-test"

// AddSelfTest puts a reader for self-tests beside the register and gives its token, which is random and lives as long as
// the process. Role is auditor for every API that people reach; a sandbox of the roles gives it more.
func (t *Tokens) AddSelfTest(role Role) string {
	var b [strongTokenBytes]byte
	rand.Read(b[:])
	token := hex.EncodeToString(b[:])
	t.selfTest.Store(&tokenEntry{hash: sha256.Sum256([]byte(token)), person: Person{Name: SelfTestPerson, Role: role, SelfTest: true}, strong: true})
	return token
}
