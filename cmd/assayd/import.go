package main

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/cheggaaa/pb/v3"
	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

const importUsage = `assayd import [--target HOST:PORT] --mapping FILE.yaml FILE.csv[.gz]

Sends exposures and outcomes of a CSV file to a server. What is recorded already
is counted as a duplicate, so a file can be imported again. A row that cannot be
read is left out as a whole and reported; the rest goes on. The exit code is 1
if anything was left out or rejected.`

func runImport(ctx context.Context, args []string, e env) error {
	flags := flag.NewFlagSet("import", flag.ContinueOnError)
	target := flags.String("target", "127.0.0.1:8080", "the server's address")
	mappingFile := flags.String("mapping", "", "the YAML file that says what the columns mean")
	if err := parseFlags(flags, args, importUsage, e); err != nil {
		return err
	}
	if *mappingFile == "" || flags.NArg() != 1 {
		return errors.New("needs --mapping and one CSV file; see 'assayd import --help'")
	}
	text, err := os.ReadFile(*mappingFile)
	if err != nil {
		return err
	}
	m, err := parseMapping(text)
	if err != nil {
		return fmt.Errorf("%s: %w", *mappingFile, err)
	}
	file, err := os.Open(flags.Arg(0))
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	conn, err := dial(*target)
	if err != nil {
		return err
	}
	defer conn.Close()
	tally, err := importRows(ctx, conn, m, file, info.Size(), e.stderr)
	if tally.rows > 0 {
		printTally(e.stdout, tally)
	}
	if err != nil {
		return err
	}
	return tally.err()
}

func dial(target string) (*grpc.ClientConn, error) {
	return grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// importRows sends the rows of a CSV file of that many bytes, and says what
// became of them, also after an error. Progress and notices go to stderr.
func importRows(ctx context.Context, conn *grpc.ClientConn, m *mapping, file io.Reader, size int64, stderr io.Writer) (*tally, error) {
	t := &tally{}
	file, clear := showProgress(file, size, stderr)
	defer clear()
	rows, err := openCSV(file)
	if err != nil {
		return t, err
	}
	header, err := rows.Read()
	if err != nil {
		return t, fmt.Errorf("the header: %w", err)
	}
	conv, err := m.compile(header)
	if err != nil {
		return t, fmt.Errorf("the mapping: %w", err)
	}
	s, sending := newSender(ctx, assayv1.NewEventServiceClient(conn), t, stderr)
	err = sendRows(sending, rows, conv, s, t)
	if failed := s.wait(); failed != nil {
		err = failed // The cause, where err is that reading was cut off.
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted; import the file again to send the rest")
	}
	return t, err
}

// sendRows reads to the end of the file, or until ctx ends.
func sendRows(ctx context.Context, rows *csv.Reader, conv *converter, s *sender, t *tally) error {
	for ctx.Err() == nil {
		fields, err := rows.Read()
		var fault *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			s.exposures.flush(ctx, s)
			s.outcomes.flush(ctx, s)
			return nil
		case errors.As(err, &fault):
			t.unreadable(fault.StartLine, fault.Err)
			continue
		case err != nil:
			return err
		}
		line, _ := rows.FieldPos(0)
		exposure, outcomes, err := conv.convert(row{line, fields})
		if err != nil {
			t.unreadable(line, err)
			continue
		}
		t.readable()
		if exposure != nil {
			s.exposures.add(ctx, s, exposure, line)
		}
		for _, o := range outcomes {
			s.outcomes.add(ctx, s, o, line)
		}
	}
	return ctx.Err()
}

// openCSV reads CSV, compressed by gzip or not, with a byte order mark or not.
func openCSV(file io.Reader) (*csv.Reader, error) {
	b := bufio.NewReader(file)
	if magic, _ := b.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, err
		}
		b = bufio.NewReader(z)
	}
	if mark, _ := b.Peek(3); bytes.Equal(mark, []byte("\ufeff")) {
		if _, err := b.Discard(len(mark)); err != nil {
			return nil, err
		}
	}
	rows := csv.NewReader(b)
	rows.ReuseRecord = true
	rows.FieldsPerRecord = -1 // The converter compares with the header.
	return rows, nil
}

// showProgress shows how much of a file was read, on a terminal only. The
// returned function clears the line.
func showProgress(file io.Reader, size int64, stderr io.Writer) (io.Reader, func()) {
	f, ok := stderr.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return file, func() {}
	}
	bar := pb.Full.New(0).SetTotal(size).SetWriter(stderr).Set(pb.Bytes, true).Start() // A total of 0 is unknown.
	return bar.NewProxyReader(file), func() { bar.Finish() }
}

// tally is what became of a file. It is safe for concurrent use until the
// import ends.
type tally struct {
	mu        sync.Mutex
	rows      int // Read, understood or not.
	bad       int // Of them, not understood.
	exposures counts
	outcomes  counts
	kinds     map[string]int // Rejected items by what was wrong.
	first     []fault        // The first few faults, by line.
}

// counts is what became of one kind of item.
type counts struct {
	recorded, duplicates, rejected int
}

// fault is a row or an item that was not recorded.
type fault struct {
	line   int
	what   string // "row", "exposure" or "outcome".
	reason string
}

// shownFaults is how many faults a report lists.
const shownFaults = 20

func (t *tally) readable() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows++
}

func (t *tally) unreadable(line int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows++
	t.bad++
	t.note(fault{line, "row", err.Error()})
}

// tooLarge counts an item that no server would receive.
func (t *tally) tooLarge(what string, to *counts, line, size int) {
	t.answered(what, to, []int{line}, &assayv1.RecordOutcomesResponse{Rejected: []*assayv1.Rejection{{
		Reason:  assayv1.RejectionReason_REJECTION_REASON_LIMIT,
		Message: fmt.Sprintf("%s bytes are too many; %s can be sent", thousands(int64(size)), thousands(batchBytes)),
	}}})
}

// answered counts the answer to a batch whose items came from these lines. It returns
// the indices of items that are to be sent again, and does not count them: those of more
// new names than one call may bring, if it brought some.
func (t *tally) answered(what string, to *counts, lines []int, a answer) (again []int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to.recorded += int(a.GetRecorded())
	to.duplicates += int(a.GetDuplicates())
	for _, r := range a.GetRejected() {
		if r.GetReason() == assayv1.RejectionReason_REJECTION_REASON_NEW_NAMES_PER_CALL && a.GetRecorded() > 0 {
			again = append(again, int(r.GetIndex()))
			continue
		}
		to.rejected++
		kind := strings.TrimPrefix(r.GetReason().String(), "REJECTION_REASON_")
		if t.kinds == nil {
			t.kinds = map[string]int{}
		}
		t.kinds[kind]++
		line := 0
		if i := int(r.GetIndex()); i >= 0 && i < len(lines) {
			line = lines[i]
		}
		t.note(fault{line, what, kind + ": " + field(r) + r.GetMessage()})
	}
	return again
}

func field(r *assayv1.Rejection) string {
	if r.GetField() == "" {
		return ""
	}
	return r.GetField() + ": "
}

// note keeps the faults with the lowest lines.
func (t *tally) note(f fault) {
	i, _ := slices.BinarySearchFunc(t.first, f, func(a, b fault) int {
		return cmp.Or(cmp.Compare(a.line, b.line), strings.Compare(a.what, b.what), strings.Compare(a.reason, b.reason))
	})
	t.first = slices.Insert(t.first, i, f)
	t.first = t.first[:min(len(t.first), shownFaults)]
}

func (t *tally) faults() int { return t.bad + t.exposures.rejected + t.outcomes.rejected }

// err says that something is missing, for the exit code.
func (t *tally) err() error {
	if t.faults() == 0 {
		return nil
	}
	return fmt.Errorf("%s rows were not understood and %s items were rejected; everything else is recorded",
		thousands(int64(t.bad)), thousands(int64(t.exposures.rejected+t.outcomes.rejected)))
}

// printTally reports an import.
func printTally(w io.Writer, t *tally) {
	fmt.Fprintf(w, "%s rows read, %s not understood.\n\n", thousands(int64(t.rows)), thousands(int64(t.bad)))
	var tab table
	tab.row("", "recorded", "duplicates", "rejected")
	for _, kind := range []struct {
		name string
		counts
	}{{"exposures", t.exposures}, {"outcomes", t.outcomes}} {
		tab.row(kind.name, thousands(int64(kind.recorded)), thousands(int64(kind.duplicates)), thousands(int64(kind.rejected)))
	}
	tab.print(w, "  ")
	if len(t.kinds) > 0 {
		fmt.Fprintln(w, "\nRejected items by reason:")
		for _, kind := range sortedKeys(t.kinds) {
			fmt.Fprintf(w, "  %s: %s\n", kind, thousands(int64(t.kinds[kind])))
		}
	}
	if len(t.first) > 0 {
		fmt.Fprintln(w, "\nNot recorded:")
		for _, f := range t.first {
			fmt.Fprintf(w, "  line %d: %s: %s\n", f.line, f.what, f.reason)
		}
		if more := t.faults() - len(t.first); more > 0 {
			fmt.Fprintf(w, "  … and %s more\n", thousands(int64(more)))
		}
	}
}
