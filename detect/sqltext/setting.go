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
	case w.kw == kwTransaction && st.first == kwSet && a.prev.kw == kwSet,
		w.kw == kwTransaction && a.prev.kw == kwLocal:
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
	if string(name) == "standard_conforming_strings" {
		a.st.config = configStrings
		a.flag(FlagStringSetting)
	}
}

// settingValue takes the flag of standard_conforming_strings back when its value is plainly on.
func (a *analysis) settingValue(t Token, w word) {
	if a.st.config != configStrings || w.kw == kwTo || w.is('=') {
		return
	}
	a.st.config = 0
	v := bytes.Trim(a.src[t.Start:t.End], `'"`)
	if bytes.EqualFold(v, []byte("on")) || bytes.EqualFold(v, []byte("true")) {
		a.facts.Flags &^= FlagStringSetting
	}
}

// configState says where in a change of a setting the analysis is.
type configState uint8

const (
	configOpen    configState = iota + 1 // set_config( was read: its first argument follows
	configArg                            // its first argument is a plain literal: a comma must follow
	configStrings                        // SET of standard_conforming_strings: its value follows
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
	case configArg:
		if !w.is(',') {
			a.flag(FlagDynamicSQL)
		}
		st.config = 0
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
	if bytes.HasPrefix(name, []byte("log_")) || bytes.HasPrefix(name, []byte("pgaudit.")) {
		return FlagGuardSetting
	}
	return 0
}
