package server

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/assayhq/assay/internal/experiment"
)

const defaultPageSize = 100

// maxPageBytes bounds the items of a page, as they are encoded: a page of 1,000
// may be asked for, and an item may take hundreds of kilobytes. One item there is
// in any case.
const maxPageBytes = 1 << 20

// firstSlice is how many items are read at first, to see how large they are.
const firstSlice = 16

// pageSize is how many items a page holds at most.
func pageSize(size int32) int {
	if size == 0 {
		return defaultPageSize
	}
	return int(size)
}

// listing is how a list is read and converted. The positions are those before
// which an item stands; their text is in the tokens.
type listing[T, P any, M proto.Message] struct {
	read     func(after P, n int) ([]T, error) // Fewer than n only at the end of the list.
	position func(T) P                         // After an item.
	convert  func(T) (M, error)
	slice    int // How many items may be read at once, as they take much more than what is told of them; 0 for any number.
}

// page returns the items of a page, and the token that continues after its last
// item if there are more. It reads no more at once than what is likely to be told.
func (l *listing[T, P, M]) page(size int32, from P) (page []M, next string, err error) {
	most, bytes := pageSize(size), 0
	for n := min(most+1, firstSlice); ; {
		items, err := l.read(from, n)
		if err != nil {
			return nil, "", err
		}
		for _, item := range items {
			m, err := l.convert(item)
			if err != nil {
				return nil, "", err
			}
			bytes += proto.Size(m)
			if len(page) == most || len(page) > 0 && bytes > maxPageBytes {
				return page, pageToken(fmt.Sprint(from)), nil
			}
			page, from = append(page, m), l.position(item)
		}
		if len(items) < n {
			return page, "", nil
		}
		n = min(most-len(page), max(0, maxPageBytes-bytes)*len(page)/max(1, bytes)) + 1
		if l.slice > 0 {
			n = min(n, l.slice)
		}
	}
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

// idPosition is the position of an id, as a token has it.
type idPosition [16]byte

func (p idPosition) String() string { return hex.EncodeToString(p[:]) }

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
