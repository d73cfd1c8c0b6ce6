package auth

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseVerifier(t *testing.T) {
	good := testVerifier(t, "secret").Format()
	head, keys, _ := strings.Cut(good[len("SCRAM-SHA-256$"):], "$")
	count, salt, _ := strings.Cut(head, ":")
	stored, server, _ := strings.Cut(keys, ":")
	form := func(count, salt, stored, server string) string {
		return "SCRAM-SHA-256$" + count + ":" + salt + "$" + stored + ":" + server
	}
	tests := []struct {
		name, text string
		ok         bool
	}{
		{"good", good, true},
		{"rebuilt", form(count, salt, stored, server), true},
		{"most iterations", form("100000", salt, stored, server), true},
		{"too few iterations", form("4095", salt, stored, server), false},
		{"too many iterations", form("100001", salt, stored, server), false},
		{"signed iterations", form("+4096", salt, stored, server), false},
		{"leading zero", form("04096", salt, stored, server), false},
		{"no salt", form(count, "", stored, server), false},
		{"salt is not base64", form(count, "!", stored, server), false},
		{"line break in the salt", form(count, salt[:4]+"\n"+salt[4:], stored, server), false},
		{"short StoredKey", form(count, salt, "AAAA", server), false},
		{"short ServerKey", form(count, salt, stored, "AAAA"), false},
		{"something behind", good + ":AAAA", false},
		{"md5", "md53175bce1d3201d16594cebf9d7eb3f9d", false},
		{"password", "secret", false},
		{"empty", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := ParseVerifier(tt.text)
			if tt.ok != (err == nil) {
				t.Fatalf("got %v", err)
			}
			if err == nil && v.Format() != tt.text {
				t.Error("Format does not give the text back")
			}
			if err != nil && tt.text != "" && strings.Contains(err.Error(), tt.text) {
				t.Error("the error repeats the secret")
			}
		})
	}
}

func TestSecretsAreHidden(t *testing.T) {
	v := testVerifier(t, "secret")
	r := Result{ClientKey: []byte("client-key-bytes"), ServerKey: []byte("server-key-bytes")}
	c := Credential{Password: "open sesame", ClientKey: []byte("client-key-bytes")}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, value := range []any{v, r, c} {
			text := fmt.Sprintf(format, value)
			for _, secret := range []string{"sesame", "client-key", "server-key", encodeBase64(v.StoredKey), string(v.StoredKey)} {
				if strings.Contains(text, secret) {
					t.Errorf("%s of %T shows a secret", format, value)
				}
			}
		}
	}
}

func TestSaslprep(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"ASCII", "pass word", "pass word"},
		{"ASCII control", "a\x07b", "a\x07b"},
		{"compatibility form", "\u2168", "IX"},
		{"non-ASCII space", "a\u00a0b", "a b"},
		{"soft hyphen goes", "I\u00adX", "IX"},
		{"zero width space is a space", "a\u200bb", "a b"},
		{"invalid UTF-8 stays", "a\xffb", "a\xffb"},
		{"prohibited stays", "a\ue000b", "a\ue000b"},
		{"prohibited before normalisation stays", "a\u0340b", "a\u0340b"},
		{"unassigned stays", "a\u0221b", "a\u0221b"},
		{"mixed direction stays", "\u0627a", "\u0627a"},
		{"nothing left stays", "\u00ad", "\u00ad"},
	}
	for _, tt := range tests {
		if got := saslprep(tt.in); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestMethods(t *testing.T) {
	if m, err := ParseMethods(nil); err != nil || m.String() != "scram-sha-256" {
		t.Errorf("default: %v %v", m, err)
	}
	m, err := ParseMethods([]string{"trust", "md5", "scram-sha-256", "password", "certificate", "scram-sha-256-plus"})
	if err != nil || m != AllMethods || m.String() != "scram-sha-256-plus,scram-sha-256,certificate,md5,password,trust" {
		t.Errorf("%v %v", m, err)
	}
	if got := fmt.Sprint(m.BelowFloor()); got != "[md5 password trust]" {
		t.Errorf("below the floor: %s", got)
	}
	if len(Floor.BelowFloor()) != 0 || Floor.Has(Trust) || Methods(0).Has(SCRAMSHA256) {
		t.Error("the floor has a hole")
	}
	for _, name := range []string{"", "SCRAM-SHA-256", "scram", "gss", "method 6"} {
		if _, err := ParseMethods([]string{name}); err == nil {
			t.Errorf("%q is taken for a method", name)
		}
	}
}
