package detect

import (
	"fmt"
	"net/netip"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect/sqltext"
)

// Disclosure is an error by which a statement can be made to tell a value, or whether something holds.
type Disclosure struct {
	SQLSTATE string
	// Name is PostgreSQL's, Tells how the error is used.
	Name, Tells string
}

// disclosures are the errors that are handed to the rules; the names are those of PostgreSQL's errcodes.txt. Errors that
// say nothing of a computed value, such as a broken constraint, a syntax error or a deadlock, are not among them.
var disclosures = []Disclosure{
	{"22P02", "invalid_text_representation", "the message repeats a text that was cast to a number or another type"},
	{"22P03", "invalid_binary_representation", "a cast of bytes fails or does not"},
	{"22003", "numeric_value_out_of_range", "the message repeats the number that a value was made into"},
	{"22007", "invalid_datetime_format", "the message repeats a text that was cast to a time"},
	{"22008", "datetime_field_overflow", "the message repeats a text that was cast to a time"},
	{"22009", "invalid_time_zone_displacement_value", "the message repeats a text that was cast to a time"},
	{"22012", "division_by_zero", "a condition divides by zero or does not"},
	{"2201B", "invalid_regular_expression", "a value as a pattern, or a condition that chooses a broken one"},
	{"2201E", "invalid_argument_for_logarithm", "a condition takes the logarithm of zero or does not"},
	{"2201F", "invalid_argument_for_power_function", "a condition takes the root of a negative number or does not"},
	{"2201G", "invalid_argument_for_width_bucket_function", "a condition makes the call fail or does not"},
	{"22011", "substring_error", "a condition asks for a negative length or does not"},
	{"22015", "interval_field_overflow", "the message repeats a text that was cast to an interval"},
	{"22021", "character_not_in_repertoire", "a condition makes a character that the encoding does not have or does not"},
	{"22023", "invalid_parameter_value", "the message repeats a value that was given as an argument"},
	{"22025", "invalid_escape_sequence", "a condition chooses a broken pattern or does not"},
	{"2202E", "array_subscript_error", "a condition makes a subscript fail or does not"},
	{"22030", "duplicate_json_object_key_value", "the message repeats a key"},
	{"22032", "invalid_json_text", "the detail repeats the text"},
	{"22033", "invalid_sql_json_subscript", "a condition makes a subscript fail or does not"},
	{"2200L", "not_an_xml_document", "the detail repeats the text"},
	{"2200M", "invalid_xml_document", "the detail repeats the text"},
	{"2200N", "invalid_xml_content", "the detail repeats the text"},
	{"2200S", "invalid_xml_comment", "a condition makes a broken comment or does not"},
	{"2200T", "invalid_xml_processing_instruction", "a condition makes a broken instruction or does not"},
	{"10608", "invalid_argument_for_xquery", "the detail repeats the expression"},
	{"21000", "cardinality_violation", "a condition makes a subquery give two rows or does not"},
}

// Disclosures lists the errors that are handed to the rules as failures.
func Disclosures() []Disclosure { return append([]Disclosure(nil), disclosures...) }

var disclosing = func() map[[5]byte]bool {
	m := make(map[[5]byte]bool, len(disclosures))
	for _, d := range disclosures {
		m[[5]byte([]byte(d.SQLSTATE))] = true
	}
	return m
}()

// Discloses says whether the error is one of Disclosures.
func Discloses(sqlstate [5]byte) bool { return disclosing[sqlstate] }

// Failure is a statement that PostgreSQL ended with an error.
type Failure struct {
	Session, Identity, Database string
	Client                      netip.Addr
	Kind                        sqltext.Kind
	SQLSTATE                    [5]byte
	// Fingerprint and Text are the Verdict's; zero when the statement is not known.
	Fingerprint, Text uint64
	SelfTest          bool
}

// ObserveFailure hands a failed statement to the rules, as a query.observed event with the facts sqlstate, text,
// fingerprint, statement and database. Errors that are none of Disclosures, and those of statements that are not known,
// are ignored.
func (e *Engine) ObserveFailure(f Failure) {
	if f.Text == 0 || !Discloses(f.SQLSTATE) {
		return
	}
	e.Observe(csf.Event{
		Time: e.cfg.Clock(), Kind: csf.QueryObserved, Session: f.Session, Identity: f.Identity, Client: netip.AddrPortFrom(f.Client, 0), SelfTest: f.SelfTest,
		Facts: csf.Facts{
			"sqlstate": string(f.SQLSTATE[:]), "text": fmt.Sprintf("%016x", f.Text), "fingerprint": fmt.Sprintf("%016x", f.Fingerprint),
			"statement": f.Kind.String(), "database": f.Database,
		},
	})
}
