package server

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// A page of large items is cut by what they take, and its token goes on with the
// next one; nor are many more read than it holds.
func TestPageBytes(t *testing.T) {
	for _, size := range []int{10, 100_000, maxPageBytes - 100, 3 * maxPageBytes} {
		const items = 60
		read := 0
		list := listing[int32, int32, *assayv1.Experiment]{
			read: func(after int32, n int) (list []int32, err error) {
				for i := after + 1; i <= items && len(list) < n; i++ {
					list = append(list, i)
				}
				read += len(list)
				return list, nil
			},
			position: func(i int32) int32 { return i },
			convert: func(i int32) (*assayv1.Experiment, error) {
				return &assayv1.Experiment{Revision: i, Description: string(make([]byte, size))}, nil
			},
		}
		var all []int32
		for after, pages := int32(0), 0; ; pages++ {
			read = 0
			page, next, err := list.page(1000, after)
			if err != nil {
				t.Fatal(err)
			}
			bytes := 0
			for _, e := range page {
				all, bytes = append(all, e.Revision), bytes+proto.Size(e)
			}
			if bytes > maxPageBytes && len(page) > 1 || read > 2*len(page)+firstSlice {
				t.Errorf("a page of %d items of %d bytes, for which %d were read", len(page), size, read)
			}
			if next == "" {
				break
			}
			if after, err = pagePosition(next, 0, readRevision); err != nil || pages > items {
				t.Fatal(after, pages, err)
			}
		}
		want := make([]int32, items)
		for i := range want {
			want[i] = int32(i) + 1
		}
		if !slices.Equal(all, want) {
			t.Errorf("items of %d bytes: the pages hold %v", size, all)
		}
	}
}

// The lists of a subject share the bytes of a page.
func TestSubjectPageBytes(t *testing.T) {
	p := &subjectPage{resp: &assayv1.GetSubjectResponse{}}
	long := string(make([]byte, 300_000))
	add := func(n int) (string, int) {
		next, added, err := addTo(p, &p.resp.Overrides, make([]int, n), 1001,
			func(n int) string { return fmt.Sprint(n) },
			func(int) *assayv1.RecordedOverride { return &assayv1.RecordedOverride{Variant: long} })
		if err != nil {
			t.Fatal(err)
		}
		return next, added
	}
	if next, n := add(2); next != "" || n != 2 {
		t.Errorf("the first two: %q, %d", next, n)
	}
	if next, n := add(3); next != pageToken("1") || n != 1 {
		t.Errorf("of three more: %q, %d", next, n)
	}
	if next, n := add(3); next != pageToken("0") || n != 0 {
		t.Errorf("on a full page: %q, %d", next, n)
	}
}
