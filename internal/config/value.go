package config

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// ParseDuration reads 10s, 200ms, 1h30m, 400d, 1d12h, or a bare 0. A negative duration is an error.
func ParseDuration(s string) (Duration, error) {
	var days time.Duration
	rest := s
	if n, after, ok := strings.Cut(s, "d"); ok {
		v, err := strconv.ParseUint(n, 10, 32)
		if err != nil || v > uint64(math.MaxInt64/int64(day)) {
			return 0, fmt.Errorf("%q is not a duration", s)
		}
		days, rest = time.Duration(v)*day, after
		if rest == "" {
			return Duration(days), nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || days+d < days {
		return 0, fmt.Errorf("%q is not a duration", s)
	}
	return Duration(days + d), nil
}

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDuration(string(b))
	return err
}

// String writes whole days as 400d and everything else as time.Duration does.
func (d Duration) String() string {
	if t := time.Duration(d); t >= day && t%day == 0 {
		return strconv.FormatInt(int64(t/day), 10) + "d"
	}
	return time.Duration(d).String()
}

// MarshalText writes what ParseDuration reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}, {"", 1}}

// ParseSize reads a number of bytes: 10000, 64KiB, 16MiB, 1GiB. Decimal units are not taken, so that a size
// means the same to everybody.
func ParseSize(s string) (Size, error) {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			break
		}
		return Size(n * u.bytes), nil
	}
	return 0, fmt.Errorf("%q is not a size", s)
}

// UnmarshalText reads what ParseSize reads.
func (z *Size) UnmarshalText(b []byte) (err error) {
	*z, err = ParseSize(string(b))
	return err
}

// String writes the size with the largest unit that divides it.
func (z Size) String() string {
	for _, u := range []int{2, 1, 0} {
		if v := sizeUnits[u]; z >= Size(v.bytes) && int64(z)%v.bytes == 0 {
			return strconv.FormatInt(int64(z)/v.bytes, 10) + v.suffix
		}
	}
	return strconv.FormatInt(int64(z), 10)
}

// MarshalText writes what ParseSize reads.
func (z Size) MarshalText() ([]byte, error) { return []byte(z.String()), nil }

// ParseDate reads a day, which counts to its end in UTC, or an RFC 3339 instant.
func ParseDate(s string) (Date, error) {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return Date{t.Add(day - time.Nanosecond)}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return Date{}, fmt.Errorf("%q is not a date", s)
	}
	return Date{t.UTC()}, nil
}

// UnmarshalText reads what ParseDate reads.
func (d *Date) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDate(string(b))
	return err
}

// Expired says whether now is after the date.
func (d Date) Expired(now time.Time) bool { return now.After(d.Time) }

// ParsePrefix reads a network; a bare address means itself alone (/32, /128). An IPv4-mapped IPv6 network
// becomes the IPv4 network that it stands for, so that comparisons see one form. A network with host bits
// set is an error: it is a typing mistake more often than not.
func ParsePrefix(s string) (netip.Prefix, error) { return parsePrefix(s, netip.Addr.Unmap) }

// parsePrefix reads a network; unmap says what becomes of IPv4-mapped addresses.
func parsePrefix(s string, unmap func(netip.Addr) netip.Addr) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q has a zone", s)
		}
		a = unmap(a)
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a network", s)
	}
	if a := unmap(p.Addr()); a.Is4() && p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%q is not a network", s)
		}
		p = netip.PrefixFrom(a, p.Bits()-96)
	}
	if m := p.Masked(); m != p {
		return netip.Prefix{}, fmt.Errorf("%q has host bits set, the network is %s", s, m)
	}
	return p, nil
}

// LogValue hides the value from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalYAML hides the value.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }
