package experiment

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
)

// DefaultUnit is the unit of subjects and experiments that name none.
const DefaultUnit = "user"

// Subject is what is randomised: one key of one kind.
type Subject struct {
	Unit string
	Key  string
}

// SubjectID stands for a subject in storage. It is a keyed hash, so that the
// database alone tells nobody who a subject is.
type SubjectID [16]byte

// String returns the id as a UUID.
func (id SubjectID) String() string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Pepper is the secret key of subject ids. Losing it means losing the link
// between subjects and their history.
type Pepper []byte

// MinPepperBytes is the least size of a pepper, that of the ids it protects.
const MinPepperBytes = 16

// What HMAC adds to the key, of which it makes two.
var (
	innerPad = [sha256.BlockSize]byte(bytes.Repeat([]byte{0x36}, sha256.BlockSize))
	outerPad = [sha256.BlockSize]byte(bytes.Repeat([]byte{0x5c}, sha256.BlockSize))
)

// SubjectID returns the first 128 bits of
// HMAC-SHA-256(pepper, unit ‖ 0 ‖ key).
//
// It is written out (RFC 2104) for pepper and subjects of usual size, since
// every event needs it: the library's state takes four allocations, and three
// times as long.
func (p Pepper) SubjectID(s Subject) SubjectID {
	var inner [sha256.BlockSize + 448]byte
	if len(p) > sha256.BlockSize || len(s.Unit)+1+len(s.Key) > len(inner)-sha256.BlockSize {
		return p.longSubjectID(s)
	}
	var outer [sha256.BlockSize + sha256.Size]byte
	copy(inner[:], p)
	copy(outer[:], p)
	subtle.XORBytes(inner[:], inner[:], innerPad[:])
	subtle.XORBytes(outer[:], outer[:], outerPad[:])
	n := sha256.BlockSize
	n += copy(inner[n:], s.Unit)
	n++ // The 0.
	n += copy(inner[n:], s.Key)
	sum := sha256.Sum256(inner[:n])
	copy(outer[sha256.BlockSize:], sum[:])
	sum = sha256.Sum256(outer[:])
	return SubjectID(sum[:16])
}

// longSubjectID is SubjectID by the library, for any size.
func (p Pepper) longSubjectID(s Subject) SubjectID {
	mac := hmac.New(sha256.New, p)
	mac.Write([]byte(s.Unit))
	mac.Write([]byte{0})
	mac.Write([]byte(s.Key))
	var sum [sha256.Size]byte
	return SubjectID(mac.Sum(sum[:0])[:16])
}

// KeyID names the pepper without telling it: a database remembers it and
// refuses a server that comes with another one.
func (p Pepper) KeyID() string {
	mac := hmac.New(sha256.New, p)
	mac.Write([]byte("assay pepper key id"))
	return hex.EncodeToString(mac.Sum(nil)[:8])
}
