package wire

import (
	"strings"

	"github.com/csfproxy/csfproxy/csf"
)

// ParseOptions reads the startup parameter options as PostgreSQL does: pg_split_opts (white space separates, a
// backslash takes the next character as it is), then -c name=value, -cname=value and --name=value with '-' in names
// meaning '_'. A missing or empty name and a missing value are refused with 22023, a word that is no switch with
// 42601. Other switches of the server program (-d, -F, …) would set parameters under another name: 42501.
func ParseOptions(options string) ([]Parameter, *Violation) {
	var out []Parameter
	words := splitOptions(options)
	for i := 0; i < len(words); i++ {
		w := words[i]
		var setting string
		switch {
		case w == "--":
			if i+1 < len(words) {
				return nil, optionViolation("42601", words[i+1], "invalid command-line argument for server process")
			}
			continue
		case strings.HasPrefix(w, "--"):
			setting = w[2:]
		case w == "-c":
			if i++; i == len(words) {
				return nil, optionViolation("22023", "-c", "-c requires a value")
			}
			setting = words[i]
		case strings.HasPrefix(w, "-c"):
			setting = w[2:]
		case len(w) > 1 && w[0] == '-':
			return nil, optionViolation("", w[:2], "startup parameter not permitted")
		default:
			return nil, optionViolation("42601", w, "invalid command-line argument for server process")
		}
		name, value, ok := strings.Cut(setting, "=")
		if name == "" {
			return nil, optionViolation("22023", setting, "options name no parameter")
		}
		if !ok {
			return nil, optionViolation("22023", name, "a parameter in options requires a value")
		}
		out = append(out, Parameter{strings.ReplaceAll(name, "-", "_"), value})
	}
	return out, nil
}

func optionViolation(code, key, message string) *Violation {
	v := startupViolation(csf.ReasonStartupParameter, key, message)
	v.Code = code
	return v
}

// splitOptions is pg_split_opts (src/backend/utils/init/postinit.c): a backslash at the very end vanishes.
func splitOptions(s string) []string {
	var words []string
	var w []byte
	for i := 0; i < len(s); {
		for i < len(s) && isSpace(s[i]) {
			i++
		}
		if i == len(s) {
			break
		}
		w = w[:0]
		escaped := false
		for ; i < len(s) && (escaped || !isSpace(s[i])); i++ {
			if !escaped && s[i] == '\\' {
				escaped = true
				continue
			}
			escaped = false
			w = append(w, s[i])
		}
		words = append(words, string(w))
	}
	return words
}

// isSpace is C's isspace in the "C" locale.
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
