package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/csfproxy/csfproxy/csf"
)

// eventColumns are the columns of csfproxy.events in the order in which rows are encoded.
const eventColumns = "time, node, epoch, seq, kind, reason, session, identity, source, client, client_port, peer, peer_port, cluster, upstream, selftest, sessions, payload"

const eventColumnCount = 18

// columns are what the event store's columns take from a payload, views into it.
type columns struct {
	seq                                                                           uint64
	micros                                                                        int64 // since 1970-01-01 UTC
	log, node, kind, reason, session, identity, source, cluster, upstream         []byte
	client, peer                                                                  netip.AddrPort
	selftest, withheld                                                            bool
	openFacts, closedFacts /* JSON objects of header and body, or empty */, block []byte
	has                                                                           []byte // JSON array: the names of what stands in the body
}

// columnsOf reads the columns of a payload without decoding its facts.
func columnsOf(payload []byte) (c columns, err error) {
	p, err := split(payload)
	if err != nil {
		return c, err
	}
	c.withheld, c.block = p.withheld, p.block
	m := membersOf(p.header)
	for {
		key, value, more := m.next()
		if !more {
			break
		}
		ok := true
		switch string(key) {
		case "seq":
			c.seq, err = strconv.ParseUint(string(value), 10, 64)
			ok = err == nil
		case "time":
			var text []byte
			if text, ok = plainText(value); ok {
				c.micros, ok = parseTime(text)
			}
		case "log":
			c.log, ok = plainText(value)
		case "node":
			c.node, ok = plainText(value)
		case "kind":
			c.kind, ok = plainText(value)
		case "reason":
			c.reason, ok = plainText(value)
		case "session":
			c.session, ok = plainText(value)
		case "source":
			c.source, ok = plainText(value)
		case "cluster":
			c.cluster, ok = plainText(value)
		case "upstream":
			c.upstream, ok = plainText(value)
		case "selftest":
			c.selftest = string(value) == "true"
		case "facts":
			c.openFacts, ok = value, membersOf(value).ok
		case "has":
			c.has = value
		}
		if !ok {
			return c, fmt.Errorf("%w: header: %s is %.40s", errPayload, key, value)
		}
	}
	if !m.ok {
		return c, fmt.Errorf("%w: the header is no JSON object", errPayload)
	}
	if p.withheld {
		return c, nil
	}
	m = membersOf(p.body)
	for {
		key, value, more := m.next()
		if !more {
			break
		}
		ok := true
		switch string(key) {
		case "identity":
			c.identity, ok = plainText(value)
		case "client":
			c.client, ok = parseAddress(value)
		case "peer":
			c.peer, ok = parseAddress(value)
		case "facts":
			c.closedFacts, ok = value, membersOf(value).ok
		}
		if !ok {
			return c, fmt.Errorf("%w: body: %s", errPayload, key)
		}
	}
	if !m.ok {
		return c, fmt.Errorf("%w: the body is no JSON object", errPayload)
	}
	return c, nil
}

func (c *columns) time() time.Time { return time.UnixMicro(c.micros).UTC() }

func parseAddress(value []byte) (netip.AddrPort, bool) {
	text, ok := plainText(value)
	if !ok {
		return netip.AddrPort{}, false
	}
	if len(text) == 0 {
		return netip.AddrPort{}, true
	}
	a, err := netip.ParseAddrPort(string(text))
	return a, err == nil
}

// parseTime reads an RFC 3339 time of UTC in the form that time.Format gives, to the microsecond.
func parseTime(b []byte) (micros int64, ok bool) {
	if len(b) < len("2006-01-02T15:04:05Z") || b[len(b)-1] != 'Z' || b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		return slowTime(b)
	}
	digits := func(from, to int) int {
		n := 0
		for _, c := range b[from:to] {
			if c < '0' || c > '9' {
				ok = false
				return 0
			}
			n = n*10 + int(c-'0')
		}
		return n
	}
	ok = true
	year, month, day := digits(0, 4), digits(5, 7), digits(8, 10)
	hour, minute, second := digits(11, 13), digits(14, 16), digits(17, 19)
	frac := b[19 : len(b)-1]
	us := 0
	if len(frac) > 0 {
		if frac[0] != '.' || len(frac) > 7 {
			return slowTime(b)
		}
		us = digits(20, len(b)-1)
		for range 7 - len(frac) {
			us *= 10
		}
	}
	if !ok || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 59 {
		return slowTime(b)
	}
	return time.Date(year, time.Month(month), day, hour, minute, second, us*1000, time.UTC).UnixMicro(), true
}

func slowTime(b []byte) (int64, bool) {
	t, err := time.Parse(time.RFC3339Nano, string(b))
	return t.UnixMicro(), err == nil
}

// rowBatch is records encoded for binary COPY, with what they add to the roll-ups.
type rowBatch struct {
	records      []Record
	buf          []byte // rows without COPY's head and end
	starts       []int  // of each row in buf
	epochAt      int    // of a row's epoch in its bytes; the node is the same in all
	days         []time.Time
	sums         *rollup
	leaves       []tlog.Hash // of each record, as times
	times        []int64     // in microseconds
	fingerprints []fingerprint
}

// fingerprint is the redacted text of a statement.
type fingerprint struct {
	Type, Key, Fingerprint, Kind, Class, Redacted string

	node string
	time time.Time
}

func (b *rowBatch) first() uint64 { return b.records[0].Seq }
func (b *rowBatch) last() uint64  { return b.records[len(b.records)-1].Seq }

// encodeRows makes the rows of records of one log in the order of their numbers.
func encodeRows(node, log string, records []Record) (*rowBatch, error) {
	size := 0
	for _, r := range records {
		size += len(r.Payload) + 192
	}
	b := &rowBatch{records: records, buf: make([]byte, 0, size), starts: make([]int, 0, len(records)), sums: newRollup(),
		epochAt: 2 + 4 + 8 + 4 + len(columnText([]byte(node))) + 4}
	b.leaves, b.times = make([]tlog.Hash, 0, len(records)), make([]int64, 0, len(records))
	var hasher leafHasher
	lastDay := int64(-1)
	for _, rec := range records {
		c, err := columnsOf(rec.Payload)
		if err != nil {
			return nil, fmt.Errorf("spooled event %d: %w", rec.Seq, err)
		}
		if string(c.log) != log || c.seq != rec.Seq || string(c.node) != node {
			return nil, fmt.Errorf("spooled event %d: %w: it says it is number %d of log %s of node %s, not of %s of %s", rec.Seq, errPayload, c.seq, c.log, c.node, log, node)
		}
		if day := floorDiv(c.micros, dayMicros); day != lastDay {
			lastDay = day
			b.addDay(dayOf(c.time()))
		}
		b.starts = append(b.starts, len(b.buf))
		b.buf = c.appendRow(b.buf, rec.Payload)
		b.sums.add(&c)
		b.addFingerprint(&c)
		leaf, err := hasher.hash(rec.Payload)
		if err != nil {
			return nil, fmt.Errorf("spooled event %d: %w", rec.Seq, err)
		}
		b.leaves, b.times = append(b.leaves, leaf), append(b.times, c.micros)
	}
	return b, nil
}

const dayMicros = int64(24 * time.Hour / time.Microsecond)

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func (b *rowBatch) addDay(day time.Time) {
	for _, d := range b.days {
		if d.Equal(day) {
			return
		}
	}
	b.days = append(b.days, day)
}

// addFingerprint keeps the redacted text of statements that are seen for the first time.
func (b *rowBatch) addFingerprint(c *columns) {
	switch csf.Kind(c.kind) {
	case csf.InventoryFirstSeen, csf.QueryFlagged, csf.QueryBlocked:
	default:
		return
	}
	var f fingerprint
	// Facts of other types under these names are not a statement's.
	if json.Unmarshal(joinObjects(c.openFacts, c.closedFacts), &f) != nil {
		return
	}
	if f.Type == "statement" && f.Fingerprint == "" {
		f.Fingerprint = f.Key
	}
	if f.Fingerprint == "" || f.Redacted == "" || len(f.Fingerprint) > 256 {
		return
	}
	if f.Kind == "" {
		f.Kind = f.Class
	}
	f.Redacted = strings.ToValidUTF8(f.Redacted, "\uFFFD")
	f.node, f.time = string(c.node), c.time()
	b.fingerprints = append(b.fingerprints, f)
}

// setEpoch writes the log's epoch into the rows, which is known only when the log is locked.
func (b *rowBatch) setEpoch(epoch int32) {
	for _, at := range b.starts {
		binary.BigEndian.PutUint32(b.buf[at+b.epochAt:], uint32(epoch))
	}
}

// copyHead and copyEnd frame the rows of a binary COPY (documentation of COPY, "Binary Format").
var (
	copyHead = []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	copyEnd  = []byte{0xff, 0xff}
)

// pgEpoch is 2000-01-01 in microseconds since 1970-01-01: where PostgreSQL's time begins.
const pgEpoch = 946_684_800_000_000

func (c *columns) appendRow(b, payload []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, eventColumnCount)
	b = appendInt8(b, c.micros-pgEpoch)
	b = appendText(b, c.node)
	b = appendInt4(b, 0) // see setEpoch
	b = appendInt8(b, int64(c.seq))
	b = appendText(b, c.kind)
	b = appendTextOrNull(b, c.reason)
	b = appendTextOrNull(b, c.session)
	b = appendTextOrNull(b, c.identity)
	b = appendTextOrNull(b, c.source)
	b = appendAddress(b, c.client)
	b = appendAddress(b, c.peer)
	b = appendTextOrNull(b, c.cluster)
	b = appendTextOrNull(b, c.upstream)
	b = append(b, 0, 0, 0, 1, 0)
	if c.selftest {
		b[len(b)-1] = 1
	}
	var sessions []int64
	if len(c.block) > 0 && string(c.kind) == string(csf.QueryObserved) {
		sessions = blockSessions(c.block)
	}
	b = appendInt8Array(b, sessions)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

// bareRow makes the row again with nothing but what it cannot be without.
func bareRow(payload []byte) ([]byte, error) {
	c, err := columnsOf(payload)
	if err != nil {
		return nil, err
	}
	bare := columns{seq: c.seq, micros: c.micros, node: c.node, kind: c.kind, selftest: c.selftest}
	return bare.appendRow(nil, payload), nil
}

func appendInt4(b []byte, v int32) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 4), uint32(v))
}

func appendInt8(b []byte, v int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 8), uint64(v))
}

func appendNull(b []byte) []byte { return append(b, 0xff, 0xff, 0xff, 0xff) }

func appendTextOrNull(b, text []byte) []byte {
	if len(text) == 0 {
		return appendNull(b)
	}
	return appendText(b, text)
}

func appendText(b, text []byte) []byte {
	text = columnText(text)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...)
}

// maxIndexed bounds the text of a column, in bytes: an index takes about 2,700 with all its columns.
const maxIndexed = 1000

// columnText makes a text one that PostgreSQL takes; what the encoder writes is so already unless it is too long.
func columnText(text []byte) []byte {
	if len(text) > maxIndexed {
		text = text[:maxIndexed]
		for i := 0; i < utf8.UTFMax && len(text) > 0; i++ {
			if r, size := utf8.DecodeLastRune(text); r != utf8.RuneError || size > 1 {
				break
			}
			text = text[:len(text)-1]
		}
	}
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		text = bytes.ReplaceAll(bytes.ToValidUTF8(text, []byte("\uFFFD")), []byte{0}, []byte("\uFFFD"))
	}
	return text
}

// appendAddress appends an inet and a port, both null when there is none.
func appendAddress(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return appendNull(appendNull(b))
	}
	const inetV4, inetV6 = 2, 3 // PGSQL_AF_INET and PGSQL_AF_INET6 of PostgreSQL's utils/inet.h
	addr := a.Addr().Unmap()
	if addr.Is4() {
		ip := addr.As4()
		b = append(append(b, 0, 0, 0, 8, inetV4, 32, 0, 4), ip[:]...)
	} else {
		ip := addr.As16()
		b = append(append(b, 0, 0, 0, 20, inetV6, 128, 0, 16), ip[:]...)
	}
	return appendInt4(b, int32(a.Port()))
}

// int8OID is the type bigint in PostgreSQL's catalogue pg_type.
const int8OID = 20

func appendInt8Array(b []byte, list []int64) []byte {
	if len(list) == 0 {
		return appendNull(b)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(20+12*len(list)))
	b = append(b, 0, 0, 0, 1, 0, 0, 0, 0) // one dimension, no nulls
	b = binary.BigEndian.AppendUint32(b, int8OID)
	b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
	b = append(b, 0, 0, 0, 1) // the first index
	for _, v := range list {
		b = appendInt8(b, v)
	}
	return b
}

// withheldNames gives the names of the fields that stood in a body that is withheld.
func (c *columns) withheldNames() (names []string) {
	if c.withheld && len(c.has) > 0 && json.Unmarshal(c.has, &names) != nil {
		return nil
	}
	return names
}

// sessionKey is what stands for a session in the column sessions: the last 64 bits of its UUID, which are random.
func sessionKey(id [16]byte) int64 { return int64(binary.BigEndian.Uint64(id[8:])) }
