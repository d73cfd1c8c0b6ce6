package csf

import (
	_ "embed"
	"errors"
	"fmt"
	"strings"
)

// ErrUnknownID is the error for a string that is no identifier of the framework.
var ErrUnknownID = errors.New("no subcategory of CSF 2.0")

// WithdrawnError is the error for an identifier of CSF 1.1 that CSF 2.0 withdrew.
type WithdrawnError struct {
	ID string
	// Moved is true where the outcome moved as a whole, false where it was incorporated into others.
	Moved bool
	// Targets are the identifiers of CSF 2.0 that took it over: subcategories, sometimes a category or a
	// function, none where the framework names only "other categories".
	Targets []string
}

// Error says what became of the identifier.
func (e *WithdrawnError) Error() string {
	what := "incorporated into"
	if e.Moved {
		what = "moved to"
	}
	where := strings.Join(e.Targets, ", ")
	if where == "" {
		where = "other categories"
	}
	return fmt.Sprintf("%s was withdrawn in CSF 2.0: %s %s", e.ID, what, where)
}

//go:embed data/withdrawn-1.1.csv
var withdrawnData string

//go:embed data/crosswalk-1.1.csv
var crosswalkData string

var withdrawnIndex = readWithdrawn(withdrawnData)

var crosswalkIndex = readCrosswalk(crosswalkData)

func readWithdrawn(data string) map[string]WithdrawnError {
	m := map[string]WithdrawnError{}
	for _, row := range embeddedRows(data, 3) {
		m[row[0]] = WithdrawnError{ID: row[0], Moved: row[1] == "moved_to", Targets: strings.Fields(row[2])}
	}
	return m
}

func readCrosswalk(data string) map[string][]string {
	m := map[string][]string{}
	for _, row := range embeddedRows(data, 2) {
		m[row[0]] = append(m[row[0]], row[1])
	}
	return m
}

// normalize11 writes an identifier of CSF 1.1 with two digits, as 2.0 does: "PR.AC-1" becomes "PR.AC-01".
func normalize11(id string) string {
	if n := len(id); n >= 2 && id[n-2] == '-' && id[n-1] >= '0' && id[n-1] <= '9' {
		return id[:n-1] + "0" + id[n-1:]
	}
	return id
}

// translate gives the identifiers of CSF 2.0 that took over an identifier of CSF 1.1 ("ID.AM-1" or "ID.AM-01"), by the
// crosswalk's pairs; none for an identifier that CSF 1.1 did not have.
func translate(id11 string) []string { return crosswalkIndex[normalize11(id11)] }
