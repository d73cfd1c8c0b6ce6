package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decoder fills a Config from a YAML tree. It walks the nodes itself, because yaml's own decoder knows
// neither the key path of a fault nor more than the first unknown key of a section.
type decoder struct {
	*source
	keys    map[string]Key
	secrets secretReader
}

func newDecoder(s *source, secrets secretReader) *decoder {
	d := &decoder{source: s, keys: map[string]Key{}, secrets: secrets}
	for _, k := range Keys() {
		d.keys[k.Path] = k
	}
	return d
}

var indexRE = regexp.MustCompile(`\[\d+\]`)

// declared gives the table's entry of a key: that of its list for an element.
func (d *decoder) declared(key string) Key {
	path := indexRE.ReplaceAllString(key, "[]")
	if k, ok := d.keys[path]; ok {
		return k
	}
	return d.keys[strings.TrimSuffix(path, "[]")]
}

// decode reads one node into v.
func (d *decoder) decode(n *yaml.Node, v reflect.Value, key string) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.ShortTag() == "!!null" && n.Kind == yaml.ScalarNode {
		d.fail(key, "the value is empty", "give a value or take the key out")
		return
	}
	switch v.Interface().(type) {
	case Duration, Size, Date, Secret, netip.Prefix:
		d.scalar(n, v, key)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.section(n, v, key)
	case reflect.Slice:
		d.list(n, v, key)
	default:
		d.scalar(n, v, key)
	}
}

// section reads a mapping into a struct.
func (d *decoder) section(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind != yaml.MappingNode {
		d.fail(key, "a section is needed, not "+kindName(n), "write its keys below it, indented")
		return
	}
	names := fieldNames(v.Type())
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		sub := join(key, name.Value)
		field, known := names[name.Value]
		if line, seen := first[name.Value]; seen {
			d.at(sub, name.Line, fmt.Sprintf("duplicate key, first given in line %d", line), "keep one of them")
			continue
		}
		first[name.Value] = name.Line
		switch {
		case name.Kind != yaml.ScalarNode:
			d.at(sub, name.Line, "a key must be a plain word", "see csfproxy config example")
		case name.Value == "<<":
			d.at(sub, name.Line, "merge keys are not supported", "write the keys out")
		case !known:
			d.at(sub, name.Line, "unknown key", suggest(name.Value, names))
		default:
			d.lines[sub] = name.Line
			d.given[sub] = true
			d.decode(value, v.Field(field), sub)
		}
	}
}

// at records a problem of a key that has a line of its own.
func (d *decoder) at(key string, line int, message, fix string) {
	d.problems = append(d.problems, Problem{File: d.file, Line: line, Key: key, Message: message, Fix: fix})
}

// list reads a sequence into a slice.
func (d *decoder) list(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind != yaml.SequenceNode {
		d.fail(key, "a list is needed, not "+kindName(n), "write [a, b], or one element a line after a dash")
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, e := range n.Content {
		sub := fmt.Sprintf("%s[%d]", key, i)
		d.lines[sub] = e.Line
		d.decode(e, out.Index(i), sub)
	}
	v.Set(out)
}

// scalar reads a single value and checks it against the table.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind != yaml.ScalarNode {
		d.fail(key, "a single value is needed, not "+kindName(n), expected(v))
		return
	}
	var err error
	var number int64
	switch p := v.Addr().Interface().(type) {
	case *Duration:
		*p, err = ParseDuration(n.Value)
		number = int64(*p)
	case *Size:
		*p, err = ParseSize(n.Value)
		number = int64(*p)
	case *Date:
		*p, err = ParseDate(n.Value)
	case *netip.Prefix:
		if strings.Contains(key, ".client_networks[") {
			// What a source may claim in IPv4-mapped form is permitted apart from the plain form.
			*p, err = parsePrefix(n.Value, func(a netip.Addr) netip.Addr { return a })
		} else {
			*p, err = ParsePrefix(n.Value)
		}
	case *Secret:
		d.secret(n, p, key)
		return
	case *int:
		*p, err = strconv.Atoi(n.Value)
		if err != nil || n.ShortTag() != "!!int" {
			err = fmt.Errorf("%q is not a whole number", n.Value)
		}
		number = int64(*p)
	case *bool, **bool:
		var b bool
		if b, err = strconv.ParseBool(n.Value); err != nil || n.ShortTag() != "!!bool" {
			err = fmt.Errorf("%q is neither true nor false", n.Value)
		} else if pp, ok := p.(**bool); ok {
			*pp = &b
		} else {
			v.SetBool(b)
		}
	case *string:
		if n.ShortTag() == "!!bool" {
			err = fmt.Errorf("a text is needed, not the truth value %s", n.Value)
		} else {
			*p = n.Value
		}
	default:
		err = fmt.Errorf("type %s is not supported", v.Type())
	}
	if err != nil {
		d.fail(key, err.Error(), expected(v))
		return
	}
	d.permitted(key, n.Value, number)
}

// permitted checks a value against the key's enumeration and bounds.
func (d *decoder) permitted(key, value string, number int64) {
	k := d.declared(key)
	if why, ok := k.Refused[value]; ok {
		d.fail(key, strconv.Quote(value)+" is not taken", why)
		return
	}
	if k.Enum != nil && !slices.Contains(k.Enum, value) {
		d.fail(key, strconv.Quote(value)+" is not a permitted value", "use one of "+strings.Join(k.Enum, ", "))
		return
	}
	if number == 0 && k.ZeroDefault {
		return
	}
	if number < k.Min || k.Max > 0 && number > k.Max {
		d.fail(key, value+" is out of bounds", "use "+bounds(k))
	}
}

// bounds writes a key's bounds in the form of its default.
func bounds(k Key) string {
	write := func(n int64) string { return strconv.FormatInt(n, 10) }
	if _, err := strconv.Atoi(k.Default); err != nil {
		if _, err := ParseSize(k.Default); err == nil {
			write = func(n int64) string { return Size(n).String() }
		} else {
			write = func(n int64) string { return Duration(n).String() }
		}
	}
	if k.Max > 0 {
		return write(k.Min) + " to " + write(k.Max)
	}
	return "at least " + write(k.Min)
}

// defaults fills in what the file leaves out, and reports required keys that are missing.
func (d *decoder) defaults(v reflect.Value, key string) {
	for i := range v.NumField() {
		name := yamlName(v.Type().Field(i))
		if name == "" {
			continue
		}
		sub, f := join(key, name), v.Field(i)
		k := d.declared(sub)
		if given := d.given[sub]; !given && k.Required {
			d.missing(sub, k)
			continue
		} else if k.Default != "" && (!given || k.ZeroDefault && f.IsZero()) && !d.bad[sub] {
			d.setDefault(f, sub, k.Default)
			continue
		}
		switch f.Interface().(type) {
		case Duration, Size, Date, Secret, netip.Prefix:
			continue
		}
		switch {
		case f.Kind() == reflect.Struct:
			d.defaults(f, sub)
		case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct && f.Type().Elem() != reflect.TypeFor[netip.Prefix]():
			for j := range f.Len() {
				if e := fmt.Sprintf("%s[%d]", sub, j); !d.bad[e] {
					d.defaults(f.Index(j), e)
				}
			}
		}
	}
}

// missing reports a required key at the line of its section, beside other missing keys of that section.
func (d *decoder) missing(key string, k Key) {
	for p := parent(key); p != ""; p = parent(p) {
		if d.bad[p] {
			return
		}
	}
	d.bad[key] = true
	what, _, _ := strings.Cut(k.Doc, ". ")
	d.at(key, d.line(key), "required and missing", "add it: "+strings.TrimSuffix(what, "."))
}

// setDefault reads the table's default as if the file had given it.
func (d *decoder) setDefault(v reflect.Value, key, value string) {
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(value), &n); err != nil {
		d.fail(key, "default: "+err.Error(), "")
		return
	}
	root := n.Content[0]
	for _, e := range append(root.Content, root) {
		e.Line = d.line(key)
	}
	d.decode(root, v, key)
}

// expected says what a value of the type looks like.
func expected(v reflect.Value) string {
	switch v.Interface().(type) {
	case Duration:
		return "write 200ms, 10s, 30m, 12h or 400d"
	case Size:
		return "write a number of bytes, or 64KiB, 16MiB, 1GiB"
	case Date:
		return "write YYYY-MM-DD or 2027-06-30T18:00:00Z"
	case netip.Prefix:
		return "write 10.0.0.0/8, 2001:db8::/32 or an address"
	}
	switch v.Kind() {
	case reflect.Int:
		return "write digits only"
	case reflect.Bool, reflect.Pointer:
		return "write true or false"
	}
	return "write one value, in quotes if it looks like something else"
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	}
	return "a single value"
}

// fieldNames maps the YAML names of a struct's fields to their indexes.
func fieldNames(t reflect.Type) map[string]int {
	names := map[string]int{}
	for i := range t.NumField() {
		if n := yamlName(t.Field(i)); n != "" {
			names[n] = i
		}
	}
	return names
}

// yamlName gives a field's name in the file, "" for a field that the file does not hold.
func yamlName(f reflect.StructField) string {
	if n := f.Tag.Get("yaml"); n != "-" {
		return n
	}
	return ""
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}
