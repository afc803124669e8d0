package experiment

import (
	"crypto/hmac"
	"crypto/sha256"
	"strings"
	"testing"
)

// The library's HMAC is the oracle of the one that is written out, at every
// size at which something changes.
func TestSubjectIDIsHMAC(t *testing.T) {
	for _, pepper := range []int{1, 16, 63, 64, 65, 200} {
		for _, key := range []int{0, 1, 55, 256, 440, 448, 449, 2000} {
			p := Pepper(strings.Repeat("p", pepper))
			s := Subject{Unit: "account", Key: strings.Repeat("k", key)}
			mac := hmac.New(sha256.New, p)
			mac.Write([]byte("account\x00" + s.Key))
			if got, want := p.SubjectID(s), SubjectID(mac.Sum(nil)[:16]); got != want {
				t.Errorf("pepper of %d bytes, key of %d: %s, want %s", pepper, key, got, want)
			}
		}
	}
}

func TestSubjectIDDoesNotAllocate(t *testing.T) {
	p, s := Pepper("a pepper for tests"), Subject{Unit: "user", Key: "u-1"}
	if n := testing.AllocsPerRun(100, func() { p.SubjectID(s) }); n != 0 {
		t.Errorf("%g allocations", n)
	}
}
