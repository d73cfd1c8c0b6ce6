package proxyproto

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"unicode/utf8"

	pp "github.com/pires/go-proxyproto"
)

// Bounds of records (PROXY protocol specification, sections 2.2.3, 2.2.5 and 2.2.6).
const (
	crcLength   = 4
	maxUniqueID = 128
	minSSL      = 5   // client bit field and the result of the verification
	maxText     = 256 // of a record's escaped value in events; ours
)

// TLV is one record of a version 2 header in a form that is safe in events and on terminals.
type TLV struct {
	// Type is the record's type byte; Name is its name in the specification, or "0x…".
	Type byte
	Name string
	// Length is that of the value in bytes.
	Length int
	// Text is the value in printable ASCII, everything else escaped as in a Go string, cut at 256 bytes.
	Text string
}

// checkTLVs gives the first defect of the records of a header, "" for none. A record that comes twice is
// refused whatever its type: two readers could believe different ones. Padding may come any number of
// times. Types without a meaning here are ignored, as the specification asks.
func checkTLVs(raw []byte, records []pp.TLV) string {
	if defect := repeated(records); defect != "" {
		return defect
	}
	for _, r := range records {
		switch r.Type {
		case pp.PP2_TYPE_CRC32C:
			if len(r.Value) != crcLength {
				return fmt.Sprintf("CRC32C has %d bytes, not 4", len(r.Value))
			}
			if binary.BigEndian.Uint32(r.Value) != checksum(raw) {
				return "CRC32C does not match"
			}
		case pp.PP2_TYPE_UNIQUE_ID:
			if len(r.Value) > maxUniqueID {
				return fmt.Sprintf("UNIQUE_ID has %d bytes, more than 128", len(r.Value))
			}
		case pp.PP2_TYPE_AUTHORITY:
			if !utf8.Valid(r.Value) || bytes.IndexByte(r.Value, 0) >= 0 {
				return "AUTHORITY is not a UTF-8 host name"
			}
		case pp.PP2_TYPE_SSL:
			if defect := checkSSL(r.Value); defect != "" {
				return defect
			}
		}
	}
	return ""
}

func checkSSL(value []byte) string {
	if len(value) < minSSL {
		return fmt.Sprintf("SSL has %d bytes, fewer than 5", len(value))
	}
	records, err := pp.SplitTLVs(value[minSSL:])
	if err != nil {
		return "a record inside SSL ends outside it"
	}
	if defect := repeated(records); defect != "" {
		return defect
	}
	for _, r := range records {
		if r.Type == pp.PP2_SUBTYPE_SSL_CN && !utf8.Valid(r.Value) {
			return "SSL_CN is not UTF-8"
		}
	}
	return ""
}

func repeated(records []pp.TLV) string {
	var seen [256]bool
	for _, r := range records {
		if r.Type == pp.PP2_TYPE_NOOP {
			continue
		}
		if seen[r.Type] {
			return typeName(r.Type) + " comes twice"
		}
		seen[r.Type] = true
	}
	return ""
}

// checksum is CRC32C over the whole header with the checksum's own value as zeros. There is exactly one
// CRC32C record of the right length: checkTLVs has seen to it.
func checksum(raw []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	start := valueOffset(raw, pp.PP2_TYPE_CRC32C)
	sum := crc32.Update(0, table, raw[:start])
	sum = crc32.Update(sum, table, make([]byte, crcLength))
	return crc32.Update(sum, table, raw[start+crcLength:])
}

// valueOffset finds where the value of the record of a type begins in a header whose records were split
// without error and that has one of that type.
func valueOffset(raw []byte, t pp.PP2Type) int {
	i := fixedPart + addressLength(raw)
	for pp.PP2Type(raw[i]) != t {
		i += 3 + int(binary.BigEndian.Uint16(raw[i+1:]))
	}
	return i + 3
}

// addressLength is the length of the address block of a version 2 header over TCP.
func addressLength(raw []byte) int {
	if pp.AddressFamilyAndProtocol(raw[13]).IsIPv4() {
		return 2*4 + 2*2
	}
	return 2*16 + 2*2
}

func describe(records []pp.TLV) []TLV {
	var out []TLV
	for _, r := range records {
		if r.Type == pp.PP2_TYPE_NOOP {
			continue
		}
		out = append(out, TLV{Type: byte(r.Type), Name: typeName(r.Type), Length: len(r.Value), Text: escape(r.Value, maxText)})
	}
	return out
}

func typeName(t pp.PP2Type) string {
	switch t {
	case pp.PP2_TYPE_ALPN:
		return "ALPN"
	case pp.PP2_TYPE_AUTHORITY:
		return "AUTHORITY"
	case pp.PP2_TYPE_CRC32C:
		return "CRC32C"
	case pp.PP2_TYPE_UNIQUE_ID:
		return "UNIQUE_ID"
	case pp.PP2_TYPE_SSL:
		return "SSL"
	case pp.PP2_TYPE_NETNS:
		return "NETNS"
	case SignatureType:
		return "SIGNATURE"
	default:
		return fmt.Sprintf("0x%02x", byte(t))
	}
}

// escape gives value in printable ASCII, at most limit bytes and marked where it was cut.
func escape(value []byte, limit int) string {
	quoted := strconv.QuoteToASCII(string(value))
	quoted = quoted[1 : len(quoted)-1]
	// Quotes are harmless in an event, and the readable form is the one that people search for.
	text := make([]byte, 0, len(quoted))
	for i := 0; i < len(quoted); i++ {
		if quoted[i] == '\\' && i+1 < len(quoted) && quoted[i+1] == '"' {
			continue
		}
		text = append(text, quoted[i])
	}
	if len(text) > limit {
		return string(text[:limit-3]) + "..."
	}
	return string(text)
}
