package detect

import (
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/csfproxy/csfproxy/detect/sqltext"
)

// costLimit bounds the work of one evaluation, in CEL's units of about one operation each.
const costLimit = 10_000

// environments are the variables that conditions may use, typed.
type environments struct{ event, statement *cel.Env }

func newEnvironments() (environments, error) {
	str, list := cel.StringType, cel.ListType(cel.StringType)
	event, err := cel.NewEnv(
		cel.Variable("kind", str), cel.Variable("reason", str), cel.Variable("session", str), cel.Variable("identity", str),
		cel.Variable("source", str), cel.Variable("client", str), cel.Variable("peer", str), cel.Variable("cluster", str),
		cel.Variable("upstream", str), cel.Variable("facts", cel.MapType(str, cel.DynType)),
	)
	if err != nil {
		return environments{}, err
	}
	statement, err := cel.NewEnv(
		cel.Variable("kind", str), cel.Variable("kinds", list), cel.Variable("flags", list), cel.Variable("functions", list),
		cel.Variable("classes", list), cel.Variable("statements", cel.IntType), cel.Variable("protocol", str),
		cel.Variable("identity", str), cel.Variable("risk", str), cel.Variable("user", str), cel.Variable("database", str),
		cel.Variable("client", str), cel.Variable("replication", cel.BoolType), cel.Variable("fingerprint", str),
	)
	return environments{event, statement}, err
}

// compile checks the condition's types and makes its program.
func compile(env *cel.Env, condition string) (cel.Program, error) {
	ast, issues := env.Compile(condition)
	if issues != nil && issues.Err() != nil {
		return nil, errors.New(strings.ReplaceAll(issues.Err().Error(), "\n", " "))
	}
	if ast.OutputType() != cel.BoolType {
		return nil, fmt.Errorf("the condition is of type %s: it must be bool", ast.OutputType())
	}
	return env.Program(ast, cel.CostLimit(costLimit))
}

// evaluate runs a program; an error means that the condition could not be decided.
func evaluate(p cel.Program, vars map[string]any) (bool, error) {
	v, _, err := p.Eval(vars)
	if err != nil {
		return false, err
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, fmt.Errorf("the condition gave %v", v)
	}
	return bool(b), nil
}

func eventVars(e csf.Event) map[string]any {
	facts := map[string]any(e.Facts)
	if facts == nil {
		facts = map[string]any{}
	}
	return map[string]any{
		"kind": string(e.Kind), "reason": string(e.Reason), "session": e.Session, "identity": e.Identity, "source": e.Source,
		"client": field(e, "client"), "peer": field(e, "peer"), "cluster": e.Cluster, "upstream": e.Upstream, "facts": facts,
	}
}

// field gives the text of an event's field for conditions and groups: client and peer without their ports.
func field(e csf.Event, name string) string {
	switch name {
	case "client":
		if a := e.Client.Addr(); a.IsValid() {
			return a.Unmap().String()
		}
		return field(e, "peer")
	case "peer":
		if a := e.Peer.Addr(); a.IsValid() {
			return a.Unmap().String()
		}
		return ""
	case "kind":
		return string(e.Kind)
	case "reason":
		return string(e.Reason)
	}
	return csf.FieldText(e, name)
}

func statementVars(in StatementInput, f *sqltext.Facts) map[string]any {
	client := ""
	if in.Client.IsValid() {
		client = in.Client.Unmap().String()
	}
	kinds := make([]string, 0, f.Statements)
	for i := range min(f.Statements, sqltext.MaxListed) {
		kinds = append(kinds, f.Each[i].String())
	}
	return map[string]any{
		"kind": f.Kind.String(), "kinds": kinds, "flags": f.Flags.Names(), "functions": f.Functions.Names(),
		"classes": f.Classes.Names(), "statements": int64(f.Statements), "protocol": string(rune(in.Protocol)),
		"identity": in.Identity, "risk": in.Risk, "user": in.User, "database": in.Database, "client": client,
		"replication": in.Replication, "fingerprint": fmt.Sprintf("%016x", f.Fingerprint),
	}
}
