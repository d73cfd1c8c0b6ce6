package api

// Role says what the holder of a token may do.
type Role string

// The roles. Every role reads; operator and admin act; approver is the second person of acts that need two, so that
// it never acts alone; admin may do what each of the others may.
const (
	RoleAuditor  Role = "auditor"
	RoleOperator Role = "operator"
	RoleApprover Role = "approver"
	RoleAdmin    Role = "admin"
	// Open marks a route that asks for no token.
	Open Role = ""
)

// Roles gives the roles in the order of their documentation.
func Roles() []Role { return []Role{RoleAuditor, RoleOperator, RoleApprover, RoleAdmin} }

// Valid says whether r is one of Roles.
func (r Role) Valid() bool { return contains(Roles(), r) }

// May says whether the holder of r may use a route that asks for need.
func (r Role) May(need Role) bool {
	switch {
	case need == Open:
		return true
	case !r.Valid():
		return false
	case r == RoleAdmin, need == RoleAuditor:
		return true
	}
	return r == need
}

// Person is the holder of a token.
type Person struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
	// SelfTest says that this is the reader of self-tests, whose calls are in no population.
	SelfTest bool `json:"-"`
}
