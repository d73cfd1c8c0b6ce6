package proxyproto

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	pp "github.com/pires/go-proxyproto"
)

// The signature record.
const (
	// SignatureType is the record's type, of the range for custom use (specification, section 2.2.8).
	SignatureType pp.PP2Type = 0xE5
	// SignatureAge is how far the time of a signature may lie from the receiver's clock, both ways.
	SignatureAge = 60 * time.Second

	stampLength     = 8
	signatureLength = stampLength + sha256.Size
)

// Sign computes the value of the signature record of a version 2 PROXY header over TCP:
//
//	8 bytes   time, Unix milliseconds, big endian
//	32 bytes  HMAC-SHA-256 with the source's key over
//	          the header's first 16 bytes as sent, with the final length ‖ the address block ‖ the 8 bytes of time
//
// header must hold at least the first 16 bytes and the address block. Other records are outside the
// signature: nothing is decided by them.
func Sign(header, key []byte, now time.Time) ([]byte, error) {
	if len(header) < fixedPart || string(header[:len(signature2)]) != signature2 {
		return nil, errors.New("proxyproto: not a version 2 header")
	}
	signed := fixedPart + addressLength(header)
	if len(header) < signed {
		return nil, errors.New("proxyproto: the header ends inside its address block")
	}
	value := binary.BigEndian.AppendUint64(make([]byte, 0, signatureLength), uint64(now.UnixMilli()))
	return append(value, mac(header[:signed], value, key)...), nil
}

// AppendSigned appends to dst a complete, signed version 2 header that asserts a TCP connection from
// client to server: what a registered source with a key sends. Both addresses are of one family after
// IPv4 mapping is taken off.
func AppendSigned(dst []byte, client, server netip.AddrPort, key []byte, now time.Time) ([]byte, error) {
	from, to := client.Addr().Unmap(), server.Addr().Unmap()
	if !from.IsValid() || from.Is4() != to.Is4() || !to.IsValid() {
		return dst, fmt.Errorf("proxyproto: %v and %v are not of one address family", client, server)
	}
	family := byte(pp.TCPv4)
	if from.Is6() {
		family = byte(pp.TCPv6)
	}
	header := append([]byte(signature2), byte(pp.PROXY), family, 0, 0)
	header = append(append(header, from.AsSlice()...), to.AsSlice()...)
	header = binary.BigEndian.AppendUint16(header, client.Port())
	header = binary.BigEndian.AppendUint16(header, server.Port())
	binary.BigEndian.PutUint16(header[14:], uint16(len(header)-fixedPart+3+signatureLength))
	value, err := Sign(header, key, now)
	if err != nil {
		return dst, err
	}
	header = append(header, byte(SignatureType), 0, signatureLength)
	return append(append(dst, header...), value...), nil
}

// verifySignature gives what is wrong with the signature of a header, "" for nothing.
func verifySignature(raw []byte, records []pp.TLV, key []byte, now time.Time) string {
	for _, r := range records {
		if r.Type != SignatureType {
			continue
		}
		if len(r.Value) != signatureLength {
			return fmt.Sprintf("the signature has %d bytes, not %d", len(r.Value), signatureLength)
		}
		want := mac(raw[:fixedPart+addressLength(raw)], r.Value[:stampLength], key)
		if !hmac.Equal(want, r.Value[stampLength:]) {
			return "the signature does not match"
		}
		// In integers, not as a Duration: a hostile stamp must not overflow it. Only the key's holder gets here.
		stamp, age := binary.BigEndian.Uint64(r.Value), uint64(SignatureAge.Milliseconds())
		clock := uint64(now.UnixMilli())
		if stamp > clock+age || clock > stamp && clock-stamp > age {
			return fmt.Sprintf("the signature's time is more than %v from this node's clock", SignatureAge)
		}
		return ""
	}
	return "the source must sign its headers and this one is not signed"
}

func mac(header, stamp, key []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(header)
	h.Write(stamp)
	return h.Sum(nil)
}
