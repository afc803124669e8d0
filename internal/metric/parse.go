package metric

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/assayhq/assay/internal/experiment"
)

// Limits of an expression, as the API states them.
const (
	MaxExpressionBytes = 1024
	MaxDepth           = 64
)

// Parse reads an expression over the names:
//
//	sum     = product { ("+" | "-") product }
//	product = factor { ("*" | "/") factor }
//	factor  = "-" factor | "(" sum ")" | number | name
//	number  = digits [ "." digits ] [ ("e" | "E") [ "+" | "-" ] digits ]
//	name    = "a"…"z" { "a"…"z" | "0"…"9" | "_" }
//
// with blanks between any two of these. Parentheses and minus signs nest at
// most MaxDepth deep. Its error is an InvalidError without a field that says
// what is wrong and at which character, counted from 1.
func Parse(expression string, names []string) (*Expression, error) {
	if len(expression) > MaxExpressionBytes {
		return nil, experiment.Invalid("", "has %d bytes; at most %d are allowed", len(expression), MaxExpressionBytes)
	}
	p := parser{text: expression, names: names}
	if p.next(); p.token == end {
		return nil, experiment.Invalid("", "must not be empty")
	}
	if err := p.sum(); err != nil {
		return nil, err
	}
	if p.token != end {
		return nil, p.expected("an operator")
	}
	return &Expression{p.nodes, divisorsOf(p.nodes)}, nil
}

// parser descends recursively and appends nodes in postfix order. It looks at
// one token ahead, text[from:to].
type parser struct {
	text     string
	names    []string
	token    token
	from, to int
	depth    int
	nodes    []node
}

// token is a kind of token. An operator or a parenthesis is its own character.
type token rune

const (
	end     token = -1
	numeral token = '0'
	name    token = 'a'
)

// next steps to the next token. A character that begins none is a token of its
// own, which no rule expects.
func (p *parser) next() {
	p.from = p.to
	for p.from < len(p.text) && isBlank(p.text[p.from]) {
		p.from++
	}
	if p.to = p.from; p.from == len(p.text) {
		p.token = end
		return
	}
	switch c := p.text[p.from]; {
	case isDigit(c):
		p.token = numeral
		p.to += numeralLength(p.text[p.from:])
	case isLetter(c):
		p.token = name
		for p.to < len(p.text) && (isLetter(p.text[p.to]) || isDigit(p.text[p.to]) || p.text[p.to] == '_') {
			p.to++
		}
	default:
		r, size := utf8.DecodeRuneInString(p.text[p.from:])
		p.token = token(r)
		p.to += size
	}
}

func (p *parser) sum() error {
	left, err := p.operand(p.product)
	for err == nil && (p.token == '+' || p.token == '-') {
		kind := add
		if p.token == '-' {
			kind = subtract
		}
		p.next()
		if _, err = p.operand(p.product); err == nil {
			left = p.append(node{kind: kind, left: left})
		}
	}
	return err
}

func (p *parser) product() error {
	left, err := p.operand(p.factor)
	for err == nil && (p.token == '*' || p.token == '/') {
		kind := multiply
		if p.token == '/' {
			kind = divide
		}
		p.next()
		if _, err = p.operand(p.factor); err == nil {
			left = p.append(node{kind: kind, left: left})
		}
	}
	return err
}

func (p *parser) factor() error {
	switch p.token {
	case '-':
		return p.nest(func() error {
			err := p.factor()
			if err == nil {
				p.append(node{kind: negate})
			}
			return err
		})
	case '(':
		return p.nest(func() error {
			if err := p.sum(); err != nil {
				return err
			}
			if p.token != ')' {
				return p.expected(`an operator or ")"`)
			}
			p.next()
			return nil
		})
	case numeral:
		x, err := strconv.ParseFloat(p.text[p.from:p.to], 64)
		if err != nil || math.IsInf(x, 0) {
			return p.invalid("the number %s is too large", p.text[p.from:p.to])
		}
		p.append(node{kind: number, constant: x})
	case name:
		i := slices.Index(p.names, p.text[p.from:p.to])
		if i < 0 {
			return p.invalid("there is no component %q", p.text[p.from:p.to])
		}
		p.append(node{kind: variable, variable: i})
	default:
		return p.expected(`a number, a name, "-" or "("`)
	}
	p.next()
	return nil
}

// operand parses by a rule and returns the node at which its value stands.
func (p *parser) operand(rule func() error) (int, error) {
	err := rule()
	return len(p.nodes) - 1, err
}

// nest steps over the present token and parses what it holds, one level down.
func (p *parser) nest(rule func() error) error {
	if p.depth++; p.depth > MaxDepth {
		return p.invalid("it is nested more than %d deep", MaxDepth)
	}
	p.next()
	err := rule()
	p.depth--
	return err
}

func (p *parser) append(n node) int {
	p.nodes = append(p.nodes, n)
	return len(p.nodes) - 1
}

func (p *parser) expected(what string) error {
	if p.token == end {
		return p.invalid("expected %s, found the end", what)
	}
	return p.invalid("expected %s, found %q", what, p.text[p.from:p.to])
}

// invalid says what is wrong with the present token.
func (p *parser) invalid(format string, args ...any) error {
	at := utf8.RuneCountInString(p.text[:p.from]) + 1
	return experiment.Invalid("", "at character %d: %s", at, fmt.Sprintf(format, args...))
}

// numeralLength is the length of the number at the start of s, which begins
// with a digit. A point or an "e" without digits after it is no part of it.
func numeralLength(s string) int {
	n := digits(s)
	if n < len(s) && s[n] == '.' {
		if d := digits(s[n+1:]); d > 0 {
			n += 1 + d
		}
	}
	if n < len(s) && (s[n] == 'e' || s[n] == 'E') {
		sign := 0
		if n+1 < len(s) && (s[n+1] == '+' || s[n+1] == '-') {
			sign = 1
		}
		if d := digits(s[n+1+sign:]); d > 0 {
			n += 1 + sign + d
		}
	}
	return n
}

// digits is the number of digits at the start of s.
func digits(s string) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c >= 'a' && c <= 'z' }
func isBlank(c byte) bool  { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
