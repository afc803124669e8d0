package experiment

import (
	"crypto/hmac"
	"crypto/sha256"
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

// SubjectID returns the first 128 bits of
// HMAC-SHA-256(pepper, unit ‖ 0 ‖ key).
func (p Pepper) SubjectID(s Subject) SubjectID {
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
