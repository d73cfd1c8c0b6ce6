package csf

// Mapping is one version of the mapping from subcategories to controls and event kinds.
type Mapping struct{ Version string }

// BuiltinMapping gives the mapping that the program carries.
func BuiltinMapping() *Mapping { return &Mapping{} }

// Tags gives the subcategories that an event of the kind and reason is evidence for, in catalogue order.
func (m *Mapping) Tags(k Kind, r Reason) []string { return nil }
