package csf

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"strings"
)

// CatalogueVersion is the version of the framework whose identifiers the catalogue holds.
const CatalogueVersion = "2.0"

// Function is one of the six functions of CSF 2.0.
type Function struct {
	ID    string // "PR"
	Title string // "PROTECT"
}

// Category is one of the 22 live categories of CSF 2.0.
type Category struct {
	ID       string // "PR.DS"
	Title    string
	Function string // id of the function
}

// Subcategory is one of the 106 live subcategories of CSF 2.0.
type Subcategory struct {
	ID       string // "PR.DS-02"
	Function string // id of the function
	Category string // id of the category
	// Summary is this project's own sentence on the outcome; NIST's text comes from LoadCatalog.
	Summary string
}

var functionTable = []Function{
	{"GV", "GOVERN"}, {"ID", "IDENTIFY"}, {"PR", "PROTECT"}, {"DE", "DETECT"}, {"RS", "RESPOND"}, {"RC", "RECOVER"},
}

var categoryTable = []Category{
	{"GV.OC", "Organizational Context", "GV"},
	{"GV.RM", "Risk Management Strategy", "GV"},
	{"GV.RR", "Roles, Responsibilities, and Authorities", "GV"},
	{"GV.PO", "Policy", "GV"},
	{"GV.OV", "Oversight", "GV"},
	{"GV.SC", "Cybersecurity Supply Chain Risk Management", "GV"},
	{"ID.AM", "Asset Management", "ID"},
	{"ID.RA", "Risk Assessment", "ID"},
	{"ID.IM", "Improvement", "ID"},
	{"PR.AA", "Identity Management, Authentication, and Access Control", "PR"},
	{"PR.AT", "Awareness and Training", "PR"},
	{"PR.DS", "Data Security", "PR"},
	{"PR.PS", "Platform Security", "PR"},
	{"PR.IR", "Technology Infrastructure Resilience", "PR"},
	{"DE.CM", "Continuous Monitoring", "DE"},
	{"DE.AE", "Adverse Event Analysis", "DE"},
	{"RS.MA", "Incident Management", "RS"},
	{"RS.AN", "Incident Analysis", "RS"},
	{"RS.CO", "Incident Response Reporting and Communication", "RS"},
	{"RS.MI", "Incident Mitigation", "RS"},
	{"RC.RP", "Incident Recovery Plan Execution", "RC"},
	{"RC.CO", "Incident Recovery Communication", "RC"},
}

//go:embed data/catalogue-2.0.csv
var catalogueData string

var subcategoryTable, subcategoryIndex = readSubcategories(catalogueData)

func readSubcategories(data string) ([]Subcategory, map[string]int) {
	rows := embeddedRows(data, 2)
	table := make([]Subcategory, len(rows))
	index := make(map[string]int, len(rows))
	for i, row := range rows {
		function, _, _ := strings.Cut(row[0], ".")
		category, _, _ := strings.Cut(row[0], "-")
		table[i] = Subcategory{ID: row[0], Function: function, Category: category, Summary: row[1]}
		index[row[0]] = i
	}
	return table, index
}

// embeddedRows reads one of the tables that are compiled in, without its heading. A table that cannot be read
// is a fault of the build, so it stops the program at once, as regexp.MustCompile does.
func embeddedRows(data string, fields int) [][]string {
	r := csv.NewReader(strings.NewReader(data))
	r.FieldsPerRecord = fields
	rows, err := r.ReadAll()
	if err != nil || len(rows) == 0 {
		panic(fmt.Sprintf("csf: embedded table: %v", err))
	}
	return rows[1:]
}

// Functions gives the six functions in the framework's order.
func Functions() []Function { return append([]Function(nil), functionTable...) }

// Categories gives the 22 categories in the framework's order.
func Categories() []Category { return append([]Category(nil), categoryTable...) }

// Subcategories gives the 106 subcategories in the framework's order.
func Subcategories() []Subcategory { return append([]Subcategory(nil), subcategoryTable...) }

// Lookup gives the subcategory with the id. Only the literal ids of CSF 2.0 are found: for an id of CSF 1.1
// that 2.0 withdrew the error is a *WithdrawnError that says where its outcome went, for every other string
// it is ErrUnknownID, which names the ids of 2.0 for one that only CSF 1.1 wrote so ("ID.AM-1").
func Lookup(id string) (Subcategory, error) {
	if i, ok := subcategoryIndex[id]; ok {
		return subcategoryTable[i], nil
	}
	if w, ok := withdrawnIndex[normalize11(id)]; ok {
		return Subcategory{}, &WithdrawnError{ID: w.ID, Moved: w.Moved, Targets: append([]string(nil), w.Targets...)}
	}
	if targets := translate(id); len(targets) > 0 {
		return Subcategory{}, fmt.Errorf("%q: %w: of CSF 1.1, now %s", id, ErrUnknownID, strings.Join(targets, ", "))
	}
	return Subcategory{}, fmt.Errorf("%q: %w", id, ErrUnknownID)
}

// CategoryTitle gives the title of a category, "" for an id that is none.
func CategoryTitle(id string) string {
	for _, c := range categoryTable {
		if c.ID == id {
			return c.Title
		}
	}
	return ""
}
