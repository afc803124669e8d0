package server

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

const defaultPageSize = 100

// pageLimit is how many items to fetch for a page: one more than it holds, to
// know whether there is a next one.
func pageLimit(size int32) int {
	if size == 0 {
		size = defaultPageSize
	}
	return int(size) + 1
}

// cutPage returns the items of a page, and the token that continues after its
// last item if there are more.
func cutPage[T any](items []T, limit int, position func(T) string) ([]T, string) {
	if len(items) < limit {
		return items, ""
	}
	items = items[:limit-1]
	return items, pageToken(position(items[len(items)-1]))
}

// pageToken is the token of a position.
func pageToken(position string) string { return base64.RawURLEncoding.EncodeToString([]byte(position)) }

// pagePosition returns what read makes of the position in a token, or first
// without a token.
func pagePosition[P any](token string, first P, read func(string) (P, bool)) (P, error) {
	if token == "" {
		return first, nil
	}
	if text, err := base64.RawURLEncoding.DecodeString(token); err == nil {
		if position, ok := read(string(text)); ok {
			return position, nil
		}
	}
	return first, experiment.Invalid("page_token", "is not a token of this list")
}

// The positions in the lists: a key, a revision, a subject, an audit event, an
// analysis by the time of its making and its id, or an item of a subject.

func readKey(s string) (string, bool) { return s, experiment.ValidKey(s) }

func readRevision(s string) (int32, bool) {
	n, err := strconv.ParseInt(s, 10, 32)
	return int32(n), err == nil && n > 0
}

func readNumber(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n > 0
}

func readID(s string) (id [16]byte, ok bool) {
	if hex.DecodedLen(len(s)) != len(id) {
		return id, false
	}
	n, err := hex.Decode(id[:], []byte(s))
	return id, err == nil && n == len(id)
}

type analysisPosition struct {
	created time.Time
	id      [16]byte
}

func (p analysisPosition) String() string {
	return fmt.Sprintf("%d %x", p.created.UnixMicro(), p.id)
}

func readAnalysis(s string) (p analysisPosition, ok bool) {
	micros, digits, _ := strings.Cut(s, " ")
	n, err := strconv.ParseInt(micros, 10, 64)
	p.created = time.UnixMicro(n).UTC()
	p.id, ok = readID(digits)
	return p, ok && err == nil && p.created.Year() >= 1970 && p.created.Year() <= 9999
}
