//! The grammar of `param` and `rule`, given to Rhai's parser as custom syntax, and what comes out of it.
//!
//! Runs at load time only. With `lower` and `language::check` one of the few places that know the shape of
//! Rhai's AST. Nothing is evaluated here. Its output goes to `language` (the file as a whole).

use rhai::packages::Package;
use rhai::{
    AST, ASTFlags, ASTNode, CustomExpr, Dynamic, Engine, Expr, ImmutableString, LexError, OptimizationLevel,
    ParseError, Position, Stmt, StmtBlock,
};

use crate::header::Switches;
use crate::language::operands;
use crate::language::source::{Item, ItemKind};

/// Expression nesting that is parsed; beyond it the parser refuses the item.
pub(crate) const MAX_DEPTH: usize = 64;

/// A name and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) at: Position,
}

/// `param name = value;` or `const name = value;`
#[derive(Clone, Debug)]
pub(crate) struct ParamItem {
    pub(crate) name: Name,
    pub(crate) value: Expr,
}

/// What may stand between a rule's events and its condition.
#[derive(Clone, Debug)]
pub(crate) enum HeaderWord {
    Severity(Name),
    Shadow,
    Sample(i64, Position),
}

/// `rule "name" on event, … [severity "s"] [shadow] [sample n] [when guard] then { body }`
#[derive(Clone, Debug)]
pub(crate) struct RuleItem {
    pub(crate) name: Name,
    /// As it stands in the file.
    pub(crate) text: String,
    pub(crate) events: Vec<Name>,
    pub(crate) header: Vec<HeaderWord>,
    /// Set from outside the file.
    pub(crate) switches: Switches,
    pub(crate) guard: Option<Expr>,
    /// The operands of the guard's `&&`, as they are written.
    pub(crate) operands: Vec<String>,
    pub(crate) body: StmtBlock,
}

/// `fn name(params) { … }`
#[derive(Clone, Debug)]
pub(crate) struct FunctionItem {
    pub(crate) name: Name,
    pub(crate) params: Vec<String>,
    pub(crate) body: Vec<Stmt>,
    /// The function alone, to be combined into the file's.
    pub(crate) ast: AST,
}

pub(crate) enum Parsed {
    Param(ParamItem),
    Constant(ParamItem),
    Rule(RuleItem),
    Function(FunctionItem),
}

/// What an item that cannot be parsed gives: where, what, and what to write instead.
pub(crate) struct Refusal {
    pub(crate) at: Position,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Refusal {
    pub(crate) fn new(at: Position, message: impl Into<String>, help: &str) -> Refusal {
        Refusal { at, message: message.into(), help: (!help.is_empty()).then(|| help.to_owned()) }
    }
}

rhai::def_package! {
    /// Nothing: names are looked up by the loader, functions by the body's engine.
    NoPackage(_module) {}
}

const RULE_FORM: &str = "write `rule \"name\" on EVENT[, EVENT] [severity \"…\"] [shadow] [sample N] \
                         [when CONDITION] then { … }`";
const PARAM_FORM: &str = "write `param name = VALUE;`";
const CONST_FORM: &str = "write `const NAME = VALUE;`";

/// The parser of rule files.
pub(crate) struct Parser {
    engine: Engine,
}

impl Parser {
    pub(crate) fn new() -> Parser {
        let mut engine = Engine::new_raw();
        engine.register_global_module(NoPackage::new().as_shared_module());
        engine.set_optimization_level(OptimizationLevel::None);
        engine.set_max_expr_depths(MAX_DEPTH, MAX_DEPTH);
        engine.set_allow_anonymous_fn(false);
        for symbol in FORBIDDEN {
            engine.disable_symbol(symbol);
        }
        engine.register_custom_syntax_with_state_raw("rule", next_of_rule, false, never_evaluated);
        engine.register_custom_syntax_with_state_raw("param", next_of_param, false, never_evaluated);
        Parser { engine }
    }

    pub(crate) fn parse(&self, item: &Item) -> Result<Parsed, Refusal> {
        if item.kind == ItemKind::Other {
            return Err(refuse_other(item));
        }
        let ast = self.engine.compile(item.padded()).map_err(|error| parse_refusal(&error, item.kind))?;
        let start = position(item);
        if item.kind == ItemKind::Function {
            return function(ast, start);
        }
        if item.kind == ItemKind::Constant {
            let ends = item.text.ends_with(';');
            return constant(&ast).filter(|_| ends).ok_or_else(|| trailing(item, start));
        }
        let custom = match ast.statements() {
            [Stmt::Expr(expr)] => match &**expr {
                Expr::Custom(custom, _) => custom,
                _ => return Err(trailing(item, start)),
            },
            _ => return Err(trailing(item, start)),
        };
        let parsed = match item.kind {
            ItemKind::Param => param(custom).map(Parsed::Param),
            _ => rule(custom, item.text).map(Parsed::Rule),
        };
        parsed.ok_or_else(|| trailing(item, start))
    }
}

/// Names of Rhai that reach outside the rule, hide a call from the loader, or make no sense in one.
pub(crate) const FORBIDDEN: [&str; 14] = [
    "eval",
    "import",
    "export",
    "print",
    "debug",
    "Fn",
    "call",
    "curry",
    "is_shared",
    "is_def_fn",
    "is_def_var",
    "sleep",
    "timestamp",
    "exit",
];

fn position(item: &Item) -> Position {
    // The loader refuses files with more lines or longer lines than a Position holds.
    let narrow = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    Position::new(narrow(item.line), narrow(item.column))
}

fn trailing(item: &Item, at: Position) -> Refusal {
    let (what, form) = match item.kind {
        ItemKind::Param => ("this param is not well-formed", PARAM_FORM),
        ItemKind::Constant => ("this constant is not well-formed", CONST_FORM),
        _ => ("this rule is not well-formed", RULE_FORM),
    };
    Refusal::new(at, what, form)
}

fn refuse_other(item: &Item) -> Refusal {
    let at = position(item);
    match item.first_word() {
        "let" => Refusal::new(
            at,
            "`let` cannot stand at the top of a rule file",
            "write `const NAME = VALUE;` or `param name = VALUE;`, or put the variable inside a rule's body",
        ),
        "import" | "export" => Refusal::new(at, "rule files cannot import or export modules", ""),
        "" => Refusal::new(
            at,
            "only `param`, `const`, `rule` and `fn` can stand at the top of a rule file",
            "a stray symbol after a rule's closing brace is the usual cause",
        ),
        word => Refusal::new(
            at,
            format!("`{word}` cannot stand at the top of a rule file"),
            "only `param`, `const`, `rule` and `fn` can; statements go inside a rule's body",
        ),
    }
}

fn parse_refusal(error: &ParseError, kind: ItemKind) -> Refusal {
    let help = match kind {
        ItemKind::Rule => RULE_FORM,
        ItemKind::Param => PARAM_FORM,
        ItemKind::Constant => CONST_FORM,
        _ => "",
    };
    let message = match error.err_type() {
        // The engine's words for what the grammar wants next.
        rhai::ParseErrorType::MissingSymbol(wanted)
            if kind == ItemKind::Rule && wanted == "Expecting a string" =>
        {
            let message = "a rule's name, and a severity, stand in double quotes";
            return Refusal::new(error.position(), message, RULE_FORM);
        }
        other => other.to_string(),
    };
    let help = match error.err_type() {
        // Only the grammar's own messages are about its form; the others are about an expression.
        rhai::ParseErrorType::BadInput(LexError::ImproperSymbol(symbol, _)) if symbol == "form" => help,
        rhai::ParseErrorType::Reserved(_) => {
            "rules cannot reach outside themselves, and this word is taken by the language"
        }
        rhai::ParseErrorType::ExprTooDeep => "split the expression, or move a part into a function",
        rhai::ParseErrorType::WrongFnDefinition => "move the function to the top of the file",
        _ => "",
    };
    Refusal::new(error.position(), message, help)
}

/// A parse error in the grammar's own words.
fn form_error(message: &str) -> ParseError {
    LexError::ImproperSymbol("form".to_owned(), message.to_owned()).into_err(Position::NONE)
}

fn never_evaluated(
    _: &mut rhai::EvalContext,
    _: &[rhai::Expression],
    _: &Dynamic,
) -> Result<Dynamic, Box<rhai::EvalAltResult>> {
    Err("a rule file is loaded, not run".into())
}

type Next = Result<Option<ImmutableString>, ParseError>;

fn step(state: &mut Dynamic, phase: i64, symbol: &str) -> Next {
    *state = Dynamic::from_int(phase);
    Ok(Some(symbol.into()))
}

/// The grammar of a rule, one symbol at a time; the state is the number of the next phase.
fn next_of_rule(_: &[ImmutableString], ahead: &str, state: &mut Dynamic) -> Next {
    match (state.as_int().unwrap_or(0), ahead) {
        (0, _) => step(state, 1, "$string$"),
        (1, "on") => step(state, 2, "on"),
        (1, _) => Err(form_error("expected `on` and an event after the rule's name")),
        (2, _) => step(state, 3, "$ident$"),
        (3, ",") => step(state, 2, ","),
        (3 | 8, "severity") => step(state, 9, "severity"),
        (9, _) => step(state, 8, "$string$"),
        (3 | 8, "shadow") => step(state, 8, "shadow"),
        (3 | 8, "sample") => step(state, 10, "sample"),
        (10, _) => step(state, 8, "$int$"),
        (3 | 8, "when") => step(state, 4, "when"),
        (3 | 5 | 8, "then") => step(state, 6, "then"),
        (8, _) => Err(form_error("expected `severity`, `shadow`, `sample`, `when` or `then` here")),
        (3, _) => Err(form_error("expected `when` or `then` after the rule's events")),
        (4, _) => step(state, 5, "$expr$"),
        (5, "=") => Err(form_error(
            "expected `then` or more of the condition; two things are compared with `==`, not `=`",
        )),
        (5, _) => Err(form_error("expected `then` after the rule's condition")),
        (6, "{") => step(state, 7, "$block$"),
        (6, _) => Err(form_error("expected `{` after `then`")),
        _ => Ok(None),
    }
}

fn next_of_param(_: &[ImmutableString], ahead: &str, state: &mut Dynamic) -> Next {
    match (state.as_int().unwrap_or(0), ahead) {
        (0, _) => step(state, 1, "$ident$"),
        (1, "=") => step(state, 2, "="),
        (1, _) => Err(form_error("expected `=` after the parameter's name")),
        (2, _) => step(state, 3, "$expr$"),
        (3, ";") => step(state, 4, ";"),
        (3, _) => Err(form_error("expected `;` after the parameter's value")),
        _ => Ok(None),
    }
}

fn param(custom: &CustomExpr) -> Option<ParamItem> {
    match custom.inputs.as_slice() {
        [Expr::Variable(name, _, at), value] => {
            let name = Name { text: name.1.to_string(), at: *at };
            Some(ParamItem { name, value: value.clone() })
        }
        _ => None,
    }
}

/// Rhai's own `const`.
fn constant(ast: &AST) -> Option<Parsed> {
    match ast.statements() {
        [Stmt::Var(declared, flags, _)] if flags.contains(ASTFlags::CONSTANT) => {
            let (name, value, _) = &**declared;
            if matches!(value, Expr::Unit(_)) {
                return None;
            }
            let name = Name { text: name.name.to_string(), at: name.pos };
            Some(Parsed::Constant(ParamItem { name, value: value.clone() }))
        }
        _ => None,
    }
}

fn rule(custom: &CustomExpr, source: &str) -> Option<RuleItem> {
    let (mut name, mut events, mut header) = (None, Vec::new(), Vec::new());
    let (mut guard, mut body) = (None, None);
    let mut inputs = custom.inputs.iter();
    // The words of the grammar, and a mark for each input.
    for token in &custom.tokens {
        let input = if token.starts_with('$') { inputs.next() } else { None };
        match (token.as_str(), input) {
            ("shadow", None) => header.push(HeaderWord::Shadow),
            ("$string$", Some(Expr::StringConstant(text, at))) => {
                let text = Name { text: text.to_string(), at: *at };
                match name {
                    None => name = Some(text),
                    Some(_) => header.push(HeaderWord::Severity(text)),
                }
            }
            ("$ident$", Some(Expr::Variable(event, _, at))) => {
                events.push(Name { text: event.1.to_string(), at: *at });
            }
            ("$int$", Some(Expr::IntegerConstant(n, at))) => header.push(HeaderWord::Sample(*n, *at)),
            ("$expr$", Some(expr)) => guard = Some(expr.clone()),
            ("$block$", Some(Expr::Stmt(block))) => body = Some((**block).clone()),
            (_, Some(_)) => return None,
            _ => {}
        }
    }
    Some(RuleItem {
        name: name?,
        text: source.to_owned(),
        events,
        header,
        switches: Switches::default(),
        guard,
        operands: operands::of_rule(source),
        body: body?,
    })
}

fn function(ast: AST, start: Position) -> Result<Parsed, Refusal> {
    let form = "write `fn name(parameter, …) { … }`";
    let (name, params) = match ast.iter_functions().next() {
        Some(f) => (f.name.to_owned(), f.params.iter().map(|&p| p.to_owned()).collect()),
        None => return Err(Refusal::new(start, "this function is not well-formed", form)),
    };
    if !ast.statements().is_empty() {
        return Err(Refusal::new(start, "statements cannot follow a function", form));
    }
    let mut body = Vec::new();
    ast.walk(&mut |path: &[ASTNode]| {
        if let [ASTNode::Stmt(stmt)] = path {
            body.push((*stmt).clone());
        }
        true
    });
    Ok(Parsed::Function(FunctionItem { name: Name { text: name, at: start }, params, body, ast }))
}
