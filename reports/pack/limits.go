package pack

import "fmt"

// Limit is one thing that a pack, or what its reader has at hand, cannot show. Verify lists those that apply as "not
// shown": none of them is a fault, and none of them is shown by a pack that verifies.
type Limit struct {
	// Text is the line, with verbs for what it names.
	Text string
	// When says when it is listed, Means what a reader makes of it.
	When, Means string
}

// The limits, in the order in which they are listed.
const (
	limitEarlier limitID = iota
	limitLater
	limitOpen
	limitLateNode
	limitConfiguration
	limitDrawnBodies
	limitNoPrevious
	limitPreviousHeld
	limitHeaders
	limitWhoseLog
	limitNotWitnessed
	limitWitnessKeys
	limitIdentities
	limitTrend
	limitSignedAt
	limitHold
	limitErased
	limitRegisters
	limitWorld
	limitCount
)

type limitID int

var limits = [limitCount]Limit{
	limitEarlier: {"Earlier records of %s are no longer stored: that none of the period's beginning is missing.",
		"retention dropped days of the period", "Ask for the pack that was made of those days while they were stored."},
	limitLater: {"Records that %s wrote after the last leaf: the pack holds everything that the log held at its checkpoint, and no record from after %s yet.",
		"the period ended less than 10 minutes before the pack was made, or a node stood still since", "A node that was cut off may still deliver records of the period. A pack made later closes it."},
	limitOpen: {"Whether %s recorded more of the period: no record of it from after the period stands up to leaf %d.",
		"a node of the range has no record from after the period, and the log goes on", "The node was ended, or its records come late. A pack with a later end closes it."},
	limitLateNode: {"Whether a node whose first record came after leaf %d was at work in the period.",
		"the log goes on beyond the range", "A node can deliver its first records late. Compare the nodes with the inventory."},
	limitConfiguration: {"That the configuration with the stated hash was in force: it was loaded before the first leaf of the pack.",
		"the record that it was loaded lies before the range", "The pack of the time when it was loaded has the record."},
	limitDrawnBodies: {"The bodies of %d drawn events: they were erased or withheld.",
		"a drawn event has no body", "The event is proved by its header alone. Compare the number with the erasures that you know of."},
	limitNoPrevious: {"That this log continues that of an earlier pack: the pack names no previous one.",
		"it is the first pack of the node", "Keep it: the next one is held against it."},
	limitPreviousHeld: {"That the previous pack that you hold is the one this pack continues: give it with --previous.",
		"--previous was not given, and the pack names one", "Without it, that the log was not begun anew between the two rests on the pack's own word."},
	limitHeaders: {"%d records were judged by their headers: their bodies are erased, withheld or empty.",
		"the report depends on events whose bodies are not in the pack", "What their bodies say does not enter the report. Compare the number with the erasures that you know of."},
	limitWhoseLog: {"Whose log it is: the key was taken from the pack itself. Give the log's verifier key with --key.",
		"--key was not given", "Anybody can make a log with a key of their own. Get the key from somebody other than the maker of the pack."},
	limitNotWitnessed: {"That the log was not rewritten before the checkpoint was signed: no witness cosigned it, so whoever holds the log's key and its database could have.",
		"no cosignature on the checkpoint verifies", "Run a witness, and keep earlier packs: they are witnesses too."},
	limitWitnessKeys: {"That the witnesses are independent: their keys were taken from the pack. Give them with --witness.",
		"--witness was not given", "The operator can run a witness. Get its key from whoever runs it."},
	limitIdentities: {"How the %d sessions divide among the %d identities of the register: names stand in bodies that the pack does not hold; their sum was checked.",
		"identities were used", "To check one identity, ask for its events with their proofs (`GET /v1/events/NODE:NUMBER/proof`)."},
	limitTrend: {"The states of earlier periods (trend, changes): their packs show them.",
		"the report compares with earlier periods", "Take these figures from the packs of those periods."},
	limitSignedAt: {"That the checkpoint was signed at %s: the log's signature holds no time, the operator states it.",
		"the pack states the time", "A cosignature holds the time of the witness's clock."},
	limitHold: {"That the records were on hold (%.200s): the operator states it.",
		"a hold covered the period", "The events `hold.applied` and `hold.released` are in the custody list."},
	limitErased: {"That %d bodies of the period were erased: a leaf is the same with its body and without, the operator states the number.",
		"bodies were erased by subject", "The event `body.erased` says who did it and why."},
	limitRegisters: {"That registers, exceptions and approvals are true: the operator states them in %s.",
		"always", "Ask the named approvers. That they stand there, and since when, is in the log (`registry.*`)."},
	limitWorld: {"That the nodes' clocks were right, and what did not pass the ingress.",
		"always", "Compare with the logs of clients and databases, and probe for ways around the ingress (`csfproxy probe`)."},
}

// Limits gives what a pack may not show, in the order in which Verify lists it.
func Limits() []Limit { return append([]Limit(nil), limits[:]...) }

func (v *verifier) notShown(l limitID, args ...any) {
	v.result.Missing = append(v.result.Missing, fmt.Sprintf(limits[l].Text, args...))
}
