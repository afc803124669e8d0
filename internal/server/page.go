package server

import (
	"encoding/base64"

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
	return items, base64.RawURLEncoding.EncodeToString([]byte(position(items[len(items)-1])))
}

// pagePosition returns what a token holds, "" for the first page, if valid
// accepts it.
func pagePosition(token string, valid func(string) bool) (string, error) {
	if token == "" {
		return "", nil
	}
	position, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || !valid(string(position)) {
		return "", experiment.Invalid("page_token", "is not a token of this list")
	}
	return string(position), nil
}
