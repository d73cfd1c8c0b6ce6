package csf

// OwnRule is a rule that the program itself applies: its findings (FindingOpened) name it in the fact "rule", and no list
// of rules in the configuration can leave it out.
type OwnRule struct {
	ID       string
	Severity string
	// Doc says when it opens a finding.
	Doc string
}

// The program's own rules.
var (
	RuleConfiguration     = OwnRule{"configuration", "medium", "The configuration that came into force holds something that its checks call weak; once for each such line."}
	RuleRecordsIncomplete = OwnRule{"records-incomplete", "high", "The listeners counted more connections than there are records; once for each difference that is new."}
	RuleRecordsGap        = OwnRule{"records-gap", "high", "Records of a node will never reach the event store: the spool lost them, or its directory was replaced; once for each `log.gap_detected`."}
	RuleLogChanged        = OwnRule{"log-changed", "critical", "The stored log is not the one that was signed."}
)

// OwnRules lists them.
func OwnRules() []OwnRule {
	return []OwnRule{RuleConfiguration, RuleRecordsIncomplete, RuleRecordsGap, RuleLogChanged}
}

// Finding gives the event of a finding by the rule, with more facts about it.
func (r OwnRule) Finding(facts Facts) Event {
	facts["rule"], facts["severity"] = r.ID, r.Severity
	return Event{Kind: FindingOpened, Facts: facts}
}
