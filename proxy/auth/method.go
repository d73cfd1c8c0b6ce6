package auth

import (
	"fmt"
	"strings"
)

// Method is one way to authenticate, named as in pg_hba.conf and the configuration.
type Method uint8

// The methods, strongest first.
const (
	SCRAMSHA256Plus Method = iota // SCRAM-SHA-256 with channel binding
	SCRAMSHA256
	Certificate
	MD5
	Password // cleartext
	Trust    // nothing is asked for
	methodCount
)

// String gives the configuration's name of the method.
func (m Method) String() string {
	names := [methodCount]string{"scram-sha-256-plus", "scram-sha-256", "certificate", "md5", "password", "trust"}
	if m < methodCount {
		return names[m]
	}
	return fmt.Sprintf("method %d", uint8(m))
}

// BelowFloor says whether the method is weaker than SCRAM-SHA-256 and so needs an explicit entry.
func (m Method) BelowFloor() bool { return m >= MD5 }

// Methods is a set of methods. The zero value permits nothing.
type Methods uint8

// Floor is the set of an identity that names none: SCRAM-SHA-256, with or without channel binding, and
// client certificates.
const Floor = Methods(1<<SCRAMSHA256Plus | 1<<SCRAMSHA256 | 1<<Certificate)

// AllMethods is the set without a floor. Nothing but a test of the floor itself uses it.
const AllMethods = Methods(1<<methodCount - 1)

// MethodSet gives the set of the methods.
func MethodSet(methods ...Method) Methods {
	var s Methods
	for _, m := range methods {
		s |= 1 << m
	}
	return s
}

// ParseMethods reads the configuration's names. Without a name it gives SCRAM-SHA-256 alone, the default.
func ParseMethods(names []string) (Methods, error) {
	if len(names) == 0 {
		return MethodSet(SCRAMSHA256), nil
	}
	var s Methods
next:
	for _, name := range names {
		for m := range methodCount {
			if m.String() == name {
				s |= 1 << m
				continue next
			}
		}
		return 0, fmt.Errorf("unknown authentication method %q", name)
	}
	return s, nil
}

// Has says whether the method is in the set.
func (s Methods) Has(m Method) bool { return s&(1<<m) != 0 }

// BelowFloor gives the part of the set that is weaker than SCRAM-SHA-256: each one is a standing finding.
func (s Methods) BelowFloor() []Method {
	var out []Method
	for m := range methodCount {
		if s.Has(m) && m.BelowFloor() {
			out = append(out, m)
		}
	}
	return out
}

// String lists the names, strongest first, separated by commas.
func (s Methods) String() string {
	var names []string
	for m := range methodCount {
		if s.Has(m) {
			names = append(names, m.String())
		}
	}
	return strings.Join(names, ",")
}
