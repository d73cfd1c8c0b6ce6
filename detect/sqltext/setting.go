package sqltext

import "bytes"

// settingWord reads SET and RESET up to the name of the setting.
func (a *analysis) settingWord(t Token, w word) {
	st := &a.st
	if st.setSeen {
		a.settingValue(t, w)
		return
	}
	if st.tokens == 2 && (w.kw == kwSession || w.kw == kwLocal) {
		st.setScope = w.kw
		return
	}
	switch {
	case w.kw == kwTransaction && st.first == kwSet && (a.prev.kw == kwSet || a.prev.kw == kwLocal || a.prev.kw == kwSession):
		st.kind, st.setSeen = KindTCL, true
		return
	case w.kw == kwCharacteristics && st.setScope == kwSession: // SET SESSION CHARACTERISTICS AS TRANSACTION …
		st.setSeen = true
		a.flag(FlagSetting)
		return
	case w.kw == kwAuthorization && a.prev.kw == kwSession:
		st.setSeen = true
		a.flag(FlagSetting | FlagRoleSwitch)
		return
	case w.kw == kwSession: // SET LOCAL SESSION AUTHORIZATION
		return
	}
	st.setSeen = true
	a.flag(FlagSetting)
	a.settingName(t)
}

// settingName looks at which setting is changed.
func (a *analysis) settingName(t Token) {
	var buf [64]byte
	name, ok := a.nameText(buf[:0], t, '\\')
	if !ok {
		return
	}
	a.flag(settingFlags(name))
	switch string(name) {
	case "standard_conforming_strings":
		a.st.config = configStrings
		a.flag(FlagStringSetting)
	case "client_encoding", "names":
		a.st.config = configEncoding
	}
}

// settingValue takes the flag of standard_conforming_strings back when its value is plainly on, and sets it for a client
// encoding in which bytes read differently.
func (a *analysis) settingValue(t Token, w word) {
	if a.st.config != configStrings && a.st.config != configEncoding || w.kw == kwTo || w.is('=') {
		return
	}
	encoding := a.st.config == configEncoding
	a.st.config = 0
	switch v := bytes.Trim(a.src[t.Start:t.End], `'"`); {
	case encoding:
		if a.unsafeEncoding(t) {
			a.flag(FlagStringSetting)
		}
	case bytes.EqualFold(v, []byte("on")) || bytes.EqualFold(v, []byte("true")):
		a.facts.Flags &^= FlagStringSetting
	}
}

// unsafeEncoding says whether the token names an encoding that needs Unambiguous, or spells a name with escapes.
func (a *analysis) unsafeEncoding(t Token) bool {
	if t.Kind != String && t.Kind != Ident && t.Kind != QuotedIdent {
		return true
	}
	if t.End-t.Start > 32 {
		return true
	}
	return trailingASCII[foldEncoding(string(a.src[t.Start:t.End]))]
}

// configState says where in a change of a setting the analysis is.
type configState uint8

const (
	configOpen        configState = iota + 1 // set_config( was read: its first argument follows
	configArg                                // its first argument is a plain literal: a comma must follow
	configStrings                            // SET of standard_conforming_strings: its value follows
	configEncoding                           // SET of client_encoding: its value follows
	configEncodingArg                        // set_config of client_encoding: a comma and its value follow
)

// configWord reads the first argument of set_config. A name that is not one plain literal is computed, and
// then nobody can say here which setting it is.
func (a *analysis) configWord(t Token, w word) {
	st := &a.st
	switch st.config {
	case configOpen:
		if w.kind != String {
			st.config = 0
			a.flag(FlagDynamicSQL)
			return
		}
		var buf [64]byte
		name := buf[:0]
		for _, c := range a.src[t.Start+1 : t.End-1] {
			if len(name) == cap(name) {
				break
			}
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			name = append(name, c)
		}
		a.flag(settingFlags(name))
		if string(name) == "standard_conforming_strings" {
			a.flag(FlagStringSetting)
		}
		st.config = configArg
		if string(name) == "client_encoding" {
			st.config = configEncodingArg
		}
	case configArg:
		if !w.is(',') {
			a.flag(FlagDynamicSQL)
		}
		st.config = 0
	case configEncodingArg:
		if w.is(',') {
			return
		}
		st.config = configArg // what follows the value must be a comma, too
		if a.unsafeEncoding(t) {
			a.flag(FlagStringSetting)
		}
	}
}

// settingFlags gives what changing the setting of that folded name means.
func settingFlags(name []byte) Flags {
	switch string(name) {
	case "role", "session_authorization":
		return FlagRoleSwitch
	case "row_security", "session_replication_role", "session_preload_libraries", "local_preload_libraries",
		"shared_preload_libraries", "dynamic_library_path", "debug_print_parse", "default_transaction_read_only",
		"backslash_quote":
		return FlagGuardSetting
	}
	if bytes.HasPrefix(name, []byte("log_")) || bytes.HasPrefix(name, []byte("pgaudit")) {
		return FlagGuardSetting
	}
	return 0
}
