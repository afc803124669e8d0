package main

import (
	"encoding/csv"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// shopMapping uses all that a mapping can say.
const shopMapping = `
subject: {unit: account, key: "c-{id}"}
maps:
  mail: {"No E-Mail": none, Mens: mens}
exposure:
  experiment: shop
  variant: "{mail}"
  time: "{sent}"
  time_layout: 2006-01-02
  attributes:
    age: {value: "{age}", type: number}
    vip: {value: "{vip}", type: bool}
    town: {value: "{town}"}
  when: {column: sent, not: [""]}
outcomes:
  - name: visit
    event_id: visit-{id}
    time: "{visited}"
    when: {column: visited, not: [""]}
  - name: "buy {town}"
    event_id: "{line}/buy"
    value: "{spend}"
    time: 2008-03-08T01:00:00+01:00
    properties: {n: {value: "{age}", type: number}}
    when: {column: town, is: [Rome]}
`

var shopHeader = []string{"id", "mail", "sent", "age", "vip", "town", "visited", "spend"}

func TestConvert(t *testing.T) {
	tests := []struct {
		name     string
		fields   []string
		exposure string
		outcomes []string
	}{
		{"everything",
			[]string{"9", "No E-Mail", "2008-03-01", "31", "true", "Rome", "1205000000.5", "4.5"},
			`{"experiment":"shop","variant":"none","exposedTime":"2008-03-01T00:00:00Z",
			  "subject":{"unit":"account","key":"c-9","attributes":{"age":31,"vip":true,"town":"Rome"}}}`,
			[]string{
				`{"eventId":"visit-9","name":"visit","subject":{"unit":"account","key":"c-9"},"occurredTime":"2008-03-08T18:13:20.5Z"}`,
				`{"eventId":"4/buy","name":"buy Rome","subject":{"unit":"account","key":"c-9"},"value":4.5,
				  "occurredTime":"2008-03-08T00:00:00Z","properties":{"n":31}}`,
			}},
		{"what is empty is left out",
			[]string{"9", "Mens", "2008-03-01", "", "", "Rome", "", ""},
			`{"experiment":"shop","variant":"mens","exposedTime":"2008-03-01T00:00:00Z",
			  "subject":{"unit":"account","key":"c-9","attributes":{"town":"Rome"}}}`,
			[]string{
				`{"eventId":"4/buy","name":"buy Rome","subject":{"unit":"account","key":"c-9"},"occurredTime":"2008-03-08T00:00:00Z"}`,
			}},
		{"nothing asked for",
			[]string{"9", "unknown", "", "x", "x", "x", "", "x"}, ``, nil},
	}
	conv, err := mustParse(t, shopMapping).compile(shopHeader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			exposure, outcomes, err := conv.convert(row{4, tt.fields})
			if err != nil {
				t.Fatal(err)
			}
			var want *assayv1.Exposure
			if tt.exposure != "" {
				want = fromJSON(t, tt.exposure, &assayv1.Exposure{})
			}
			if diff := cmp.Diff(want, exposure, protocmp.Transform()); diff != "" {
				t.Errorf("exposure (-want +got):\n%s", diff)
			}
			var wants []*assayv1.Outcome
			for _, o := range tt.outcomes {
				wants = append(wants, fromJSON(t, o, &assayv1.Outcome{}))
			}
			if diff := cmp.Diff(wants, outcomes, protocmp.Transform()); diff != "" {
				t.Errorf("outcomes (-want +got):\n%s", diff)
			}
		})
	}
}

func fromJSON[M proto.Message](t *testing.T, text string, m M) M {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestConvertRefusesRows(t *testing.T) {
	good := []string{"9", "Mens", "2008-03-01", "31", "true", "Rome", "1205000000", "4.5"}
	with := func(i int, field string) []string {
		fields := append([]string(nil), good...)
		fields[i] = field
		return fields
	}
	tests := []struct {
		name   string
		fields []string
		want   string
	}{
		{"too few fields", good[:3], "has 3 fields, the header has 8"},
		{"too many fields", append(good[:8:8], "x"), "has 9 fields, the header has 8"},
		{"bytes", with(5, "\xff"), `"\xff" is not UTF-8`},
		{"an unmapped value", with(1, "Womens"), `exposure.variant: the map of column mail has no entry for "Womens"`},
		{"no number", with(3, "old"), `exposure.attributes.age: "old" is not a number`},
		{"NaN", with(3, "NaN"), `exposure.attributes.age: "NaN" is not a number`},
		{"infinity", with(7, "-inf"), `outcomes[1].value: "-inf" is not a number`},
		{"too large", with(7, "1e999"), `outcomes[1].value: "1e999" is not a number`},
		{"no bool", with(4, "ja"), `exposure.attributes.vip: "ja" is neither true nor false`},
		{"not the layout", with(2, "1.3.2008"), `exposure.time: "1.3.2008" is not a time like "2006-01-02"`},
		{"no time", with(6, "now"), `outcomes[0].time: "now" is neither a time as in RFC 3339 nor in seconds since 1970`},
	}
	conv, err := mustParse(t, shopMapping).compile(shopHeader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := conv.convert(row{4, tt.fields})
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %q, want %q", err, tt.want)
			}
		})
	}
}

func TestRequiredFields(t *testing.T) {
	conv, err := mustParse(t, `
subject: {key: "{a}"}
outcomes: [{name: n, event_id: "{b}", time: "1"}]`).compile([]string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	for want, fields := range map[string][]string{
		"subject.key: is empty":          {"", "x"},
		"outcomes[0].event_id: is empty": {"x", ""},
	} {
		if _, _, err := conv.convert(row{2, fields}); err == nil || err.Error() != want {
			t.Errorf("%q: error %q, want %q", fields, err, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	tests := []struct {
		text, layout string
		want         string // Empty: refused.
	}{
		{"2008-03-01T10:00:00+02:00", "", "2008-03-01T08:00:00Z"},
		{"2008-03-01T10:00:00.123456789Z", "", "2008-03-01T10:00:00.123456789Z"},
		{"2008-03-01", "", ""},
		{"0", "", "1970-01-01T00:00:00Z"},
		{"1205000000", "", "2008-03-08T18:13:20Z"},
		{"1205000000.123456", "", "2008-03-08T18:13:20.123456Z"},
		{"1205000000.", "", "2008-03-08T18:13:20Z"},
		{"1205000000.1.2", "", ""},
		{"1205000000.-1", "", ""},
		{"-1", "", ""},
		{"1205000000000", "", ""}, // Milliseconds would be the year 40154.
		{"1205000000000", "unix_ms", "2008-03-08T18:13:20Z"},
		{"1205000000123.5", "unix_ms", "2008-03-08T18:13:20.1235Z"},
		{"9223372036854775807", "unix_ms", ""},
		{"2008-03-01T10:00:00Z", "unix_ms", ""},
		{"01/03/2008 09:30", "02/01/2006 15:04", "2008-03-01T09:30:00Z"},
		{"31/02/2008 09:30", "02/01/2006 15:04", ""},
	}
	for _, tt := range tests {
		t.Run(tt.text+" "+tt.layout, func(t *testing.T) {
			got, err := parseTime(tt.text, tt.layout)
			if (err != nil) != (tt.want == "") {
				t.Fatalf("error %v", err)
			}
			if s := got.UTC().Format(time.RFC3339Nano); err == nil && s != tt.want {
				t.Errorf("= %s, want %s", s, tt.want)
			}
		})
	}
}

// Whatever mapping and file come together: no panic, and all that is made can be
// sent.
func FuzzConvert(f *testing.F) {
	f.Add([]byte(shopMapping), strings.Join(shopHeader, ",")+"\n9,Mens,2008-03-01,31,true,Rome,1205000000,4.5\n")
	hillstrom, err := demoFiles.ReadFile("demo/hillstrom.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(hillstrom, "recency,history_segment,history,mens,womens,zip_code,newbie,channel,treatment,conversion,visit,spend\n"+
		"10,\"2) $100 - $200\",142.44,1,0,Surburban,0,Phone,Womens E-Mail,1,1,3.5\n")
	f.Add([]byte("subject: {key: '{a}'}\noutcomes: [{name: n, event_id: '{line}', time: '{b}', time_layout: unix_ms, value: '{{'}]"), "\ufeffa,b\n\"x\ny\",12\n")
	f.Fuzz(func(t *testing.T, text []byte, file string) {
		m, err := parseMapping(text)
		if err != nil {
			return
		}
		rows, err := openCSV(strings.NewReader(file))
		if err != nil {
			return
		}
		header, err := rows.Read()
		if err != nil {
			return
		}
		conv, err := m.compile(append([]string(nil), header...))
		if err != nil {
			return
		}
		for {
			fields, err := rows.Read()
			if bad := new(csv.ParseError); errors.As(err, &bad) {
				continue
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Logf("the file ends with %v", err)
				}
				return
			}
			line, _ := rows.FieldPos(0)
			exposure, outcomes, err := conv.convert(row{line, fields})
			if err != nil {
				continue
			}
			checkSendable(t, exposure, exposure.GetExposedTime())
			for _, o := range outcomes {
				checkSendable(t, o, o.GetOccurredTime())
			}
		}
	})
}

func checkSendable(t *testing.T, m proto.Message, moment *timestamppb.Timestamp) {
	t.Helper()
	if _, err := proto.Marshal(m); err != nil {
		t.Errorf("cannot be sent: %v", err)
	}
	if err := moment.CheckValid(); moment != nil && err != nil {
		t.Errorf("time: %v", err)
	}
}
