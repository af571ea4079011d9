//! Reads rule bodies and helper functions before they ever run: names that do not exist, facts that do
//! not exist, calls that are not allowed, rules inside rules, and what a body reaches (facts, `capture`).
//!
//! Runs at load time only; evaluates nothing. What it finds decides a tick rule's scope and whether a
//! rule's hit holds the flow.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{ASTNode, Expr, FnCallExpr, Position, Stmt};

use crate::body::STATE;
use crate::facts::table::{Subject, Window};
use crate::facts::{CountSet, FlowFacts, HostFacts, LinkFacts, ServiceFacts};
use crate::header;
use crate::language::builtin;
use crate::language::syntax::Refusal;
use crate::nearest::nearest;

/// What a guard or body names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reach {
    /// Each of `flow`, `host`, `service` it names, and where first.
    pub(crate) roots: BTreeMap<&'static str, Position>,
    /// Names it calls: helper functions, or functions for bodies.
    pub(crate) calls: BTreeSet<String>,
    pub(crate) captures: bool,
    /// `host`, `service` where they are all that `capture` is given.
    pub(crate) captured: BTreeMap<&'static str, Position>,
    /// It calls `incident` with a text alone: the severity must be the header's.
    pub(crate) plain_incident: Option<Position>,
    /// What its windowed facts count.
    pub(crate) counts: CountSet,
    /// Of these, over a single second, or over a window that only shows when it runs.
    pub(crate) second: CountSet,
}

impl Reach {
    pub(crate) fn merge(&mut self, other: &Reach) {
        for (root, at) in &other.roots {
            self.roots.entry(root).or_insert(*at);
        }
        self.calls.extend(other.calls.iter().cloned());
        self.captures |= other.captures;
        self.plain_incident = self.plain_incident.or(other.plain_incident);
        for (root, at) in &other.captured {
            self.captured.entry(root).or_insert(*at);
        }
        self.counts = self.counts.union(other.counts);
        self.second = self.second.union(other.second);
    }
}

/// The names a file offers to its bodies.
pub(crate) struct Names<'a> {
    pub(crate) params: &'a BTreeSet<&'a str>,
    /// Name and number of arguments.
    pub(crate) functions: &'a BTreeSet<(&'a str, usize)>,
}

pub(crate) const ROOTS: [&str; 4] = [FlowFacts::ROOT, HostFacts::ROOT, ServiceFacts::ROOT, LinkFacts::ROOT];

/// What a block reaches, and everything wrong with it.
pub(crate) fn check(statements: &[Stmt], names: &Names) -> (Reach, Vec<Refusal>) {
    let mut checker = Checker { names, reach: Reach::default(), refusals: Vec::new() };
    for statement in statements {
        checker.statement(statement);
    }
    (checker.reach, checker.refusals)
}

/// What an expression names, without judging it: lowering does that.
pub(crate) fn reach(expr: &Expr) -> Reach {
    let (params, functions) = (BTreeSet::new(), BTreeSet::new());
    let names = Names { params: &params, functions: &functions };
    let mut checker = Checker { names: &names, reach: Reach::default(), refusals: Vec::new() };
    checker.expression(expr);
    checker.reach
}

struct Checker<'n> {
    names: &'n Names<'n>,
    reach: Reach,
    refusals: Vec<Refusal>,
}

impl Checker<'_> {
    fn statement(&mut self, statement: &Stmt) {
        statement.walk(&mut Vec::new(), &mut |path| self.node(path));
    }

    fn expression(&mut self, expr: &Expr) {
        expr.walk(&mut Vec::new(), &mut |path| self.node(path));
    }

    fn refuse(&mut self, at: Position, message: impl Into<String>, help: impl AsRef<str>) {
        self.refusals.push(Refusal::new(at, message, help.as_ref()));
    }

    /// Called for each node; the path leads to it from the outermost one. Always goes on.
    fn node(&mut self, path: &[ASTNode]) -> bool {
        let above = &path[..path.len().saturating_sub(1)];
        if above.iter().any(|node| matches!(node, ASTNode::Expr(Expr::Custom(..)))) {
            // Refused as a whole.
            return true;
        }
        match path.last() {
            Some(ASTNode::Expr(Expr::Variable(_, None, at))) if captured_by(path).is_some() => {
                self.captured(captured_by(path).unwrap_or(FlowFacts::ROOT), *at);
            }
            Some(ASTNode::Expr(expr)) => self.expr_node(expr),
            Some(ASTNode::Stmt(stmt)) => self.stmt_node(stmt),
            _ => {}
        }
        true
    }

    fn stmt_node(&mut self, stmt: &Stmt) {
        match stmt {
            // The walk does not enter the value of a `break`.
            Stmt::BreakLoop(Some(value), ..) => self.expression(value),
            Stmt::FnCall(call, at) => self.call(call, *at),
            Stmt::Assignment(assignment) => {
                if let Expr::Variable(name, short, at) = &assignment.1.lhs
                    && short.is_none()
                    && name.0.is_none()
                {
                    let message = format!("`{}` cannot be assigned to", name.1);
                    self.refuse(*at, message, "declare a variable of the body with `let name = …;`");
                }
            }
            Stmt::Import(_, at) | Stmt::Export(_, at) => {
                self.refuse(*at, "rules cannot import or export modules", "");
            }
            _ => {}
        }
    }

    fn expr_node(&mut self, expr: &Expr) {
        match expr {
            Expr::Custom(_, at) => {
                let message = "a rule or param can only stand at the top of the file";
                self.refuse(*at, message, "move it out of this block");
            }
            Expr::Variable(name, short, at) => {
                if !name.2.is_empty() {
                    self.refuse(*at, "rules have no modules", "");
                } else if short.is_none() && name.0.is_none() {
                    self.variable(&name.1, *at);
                }
            }
            Expr::FnCall(call, at) => self.call(call, *at),
            Expr::MethodCall(call, at) => self.method(call, *at),
            Expr::Dot(..) => self.path(expr),
            _ => {}
        }
    }

    fn variable(&mut self, name: &str, at: Position) {
        if let Some(root) = ROOTS.iter().find(|root| **root == name) {
            self.reach.roots.entry(root).or_insert(at);
        } else if !self.names.params.contains(name) && name != STATE {
            let known = self.names.params.iter().chain(&ROOTS).copied();
            let help = match nearest(name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "declare it with `let` before, or as a `param` at the top of the file".to_owned(),
            };
            self.refuse(at, format!("`{name}` is not known here"), help);
        }
    }

    fn captured(&mut self, root: &'static str, at: Position) {
        match root {
            LinkFacts::ROOT => self.refuse(
                at,
                "all traffic cannot be captured",
                "name what to record: capture(flow), capture(host) or capture(service)",
            ),
            FlowFacts::ROOT => {
                self.reach.captures = true;
                self.reach.roots.entry(root).or_insert(at);
            }
            _ => {
                self.reach.captured.entry(root).or_insert(at);
            }
        }
    }

    fn call(&mut self, call: &FnCallExpr, at: Position) {
        if call.is_operator_call() {
            return;
        }
        if call.is_qualified() {
            return self.refuse(at, "rules have no modules", "");
        }
        self.named_call(&call.name, call.args.len(), at);
        if let ("incident", [Expr::StringConstant(text, at), _]) = (&*call.name, call.args.as_slice()) {
            self.refusals.extend(header::severity(text, *at).err());
        }
        self.reach.captures |= call.name == "capture" && captured_root(call).is_none();
    }

    fn method(&mut self, call: &FnCallExpr, at: Position) {
        let windowed = windowed_names().any(|name| name == call.name.as_str());
        if windowed {
            let counts = CountSet::of_fact(&call.name);
            self.reach.counts = self.reach.counts.union(counts);
            if !matches!(call.args.as_slice(), [Expr::IntegerConstant(10 | 60, _)]) {
                self.reach.second = self.reach.second.union(counts);
            }
        } else {
            // A helper function called as a method gets its subject as `this`, not as an argument.
            let helper = self.names.functions.contains(&(call.name.as_str(), call.args.len()));
            self.named_call(&call.name, call.args.len() + usize::from(!helper), at);
            self.reach.captures |= call.name == "capture";
        }
    }

    fn named_call(&mut self, name: &str, args: usize, at: Position) {
        self.reach.calls.insert(name.to_owned());
        if self.names.functions.contains(&(name, args)) {
            return;
        }
        if builtin::is_known(name) {
            if name == "incident" && args == 1 {
                self.reach.plain_incident.get_or_insert(at);
            }
            return;
        }
        let names = self.names;
        if let Some((_, takes)) = names.functions.iter().find(|(known, _)| *known == name) {
            let message = format!("`{name}` takes {takes} argument(s), not {args}");
            return self.refuse(at, message, "");
        }
        let mut known: Vec<&str> = names.functions.iter().map(|(name, _)| *name).collect();
        builtin::names().for_each(|name| known.push(name));
        let help = match nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "docs/rules.md lists the functions a body can call".to_owned(),
        };
        self.refuse(at, format!("there is no function `{name}`"), help);
    }

    /// `flow.orig.mss`: the whole chain hangs below its first dot.
    fn path(&mut self, expr: &Expr) {
        let Some(chain) = Chain::of(expr) else { return };
        if let (LinkFacts::ROOT, Some((call, at))) = (chain.root, chain.method)
            && call.name == "capture"
        {
            self.captured(LinkFacts::ROOT, at);
        }
        let checked = match chain.root {
            "flow" => check_path::<FlowFacts>(&chain),
            "host" => check_path::<HostFacts>(&chain),
            "service" => check_path::<ServiceFacts>(&chain),
            _ => check_path::<LinkFacts>(&chain),
        };
        if let Err(refusal) = checked {
            self.refusals.push(refusal);
        }
    }
}

/// The subject that is all a call of `capture` is about.
fn captured_root(call: &FnCallExpr) -> Option<&'static str> {
    match call.args.first() {
        Some(Expr::Variable(name, None, _)) if call.name == "capture" && name.0.is_none() => {
            ROOTS.into_iter().find(|root| *root == name.1.as_str())
        }
        _ => None,
    }
}

/// The last of the path is the subject that a call of `capture` is about.
fn captured_by(path: &[ASTNode]) -> Option<&'static str> {
    let [.., above, ASTNode::Expr(last)] = path else { return None };
    let call = match above {
        ASTNode::Expr(Expr::FnCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _)) => call,
        _ => return None,
    };
    call.args.first().filter(|first| std::ptr::eq(*first, *last)).and_then(|_| captured_root(call))
}

fn windowed_names() -> impl Iterator<Item = &'static str> {
    let host = HostFacts::facts().filter(|f| f.is_windowed()).map(|f| f.path);
    let service = ServiceFacts::facts().filter(|f| f.is_windowed()).map(|f| f.path);
    host.chain(service).filter_map(|path| path.split('.').next_back())
}

/// A dotted path that begins at a subject.
pub(crate) struct Chain<'a> {
    pub(crate) root: &'static str,
    /// Property names and where they stand.
    pub(crate) names: Vec<(&'a str, Position)>,
    /// The method called at the end of those names, if any, and what follows is not looked at.
    pub(crate) method: Option<(&'a FnCallExpr, Position)>,
}

impl<'a> Chain<'a> {
    pub(crate) fn of(expr: &'a Expr) -> Option<Chain<'a>> {
        let Expr::Dot(first, ..) = expr else { return None };
        let Expr::Variable(name, None, _) = &first.lhs else { return None };
        if name.0.is_some() {
            return None;
        }
        let root = ROOTS.into_iter().find(|root| *root == name.1.as_str())?;
        let mut chain = Chain { root, names: Vec::new(), method: None };
        let mut rest = &first.rhs;
        loop {
            match rest {
                Expr::Property(name, at) => {
                    chain.names.push((&name.2, *at));
                    return Some(chain);
                }
                Expr::MethodCall(call, at) => {
                    chain.method = Some((call, *at));
                    return Some(chain);
                }
                Expr::Dot(next, ..) => {
                    match &next.lhs {
                        Expr::Property(name, at) => chain.names.push((&name.2, *at)),
                        Expr::MethodCall(call, at) => {
                            chain.method = Some((call, *at));
                            return Some(chain);
                        }
                        _ => return Some(chain),
                    }
                    rest = &next.rhs;
                }
                _ => return Some(chain),
            }
        }
    }

    /// `flow.orig.mss`
    pub(crate) fn path(&self) -> String {
        let mut path = self.root.to_owned();
        for (name, _) in &self.names {
            path.push('.');
            path.push_str(name);
        }
        path
    }
}

/// The refusal for a path that names no fact.
pub(crate) fn unknown_fact<S: Subject>(path: &str, at: Position) -> Refusal {
    let help = match nearest(path, S::facts().map(|fact| fact.path)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("docs/rules.md lists the facts of `{}`", S::ROOT),
    };
    Refusal::new(at, format!("there is no fact `{path}`"), &help)
}

/// The window named by a call's only argument.
pub(crate) fn window(call: &FnCallExpr, path: &str, at: Position) -> Result<Window, Refusal> {
    let help = format!("write `{path}(1)`, `{path}(10)` or `{path}(60)`: the window in seconds");
    match call.args.as_slice() {
        [Expr::IntegerConstant(seconds, at)] => Window::from_seconds(*seconds)
            .ok_or_else(|| Refusal::new(*at, format!("no counts are kept over {seconds} s"), &help)),
        [other] => Err(Refusal::new(other.start_position(), "the window must be a plain number", &help)),
        _ => Err(Refusal::new(at, format!("`{path}` takes one argument"), &help)),
    }
}

/// In bodies a chain may go on behind the fact: `flow.src.to_string()`.
fn check_path<S: Subject>(chain: &Chain) -> Result<(), Refusal> {
    let mut path = chain.root.to_owned();
    for (name, at) in &chain.names {
        path.push('.');
        path.push_str(name);
        if let Some(fact) = S::find(&path) {
            return match fact.is_windowed() {
                true => {
                    Err(Refusal::new(*at, format!("`{path}` needs a window"), &format!("write `{path}(10)`")))
                }
                false => Ok(()),
            };
        }
        let prefix = format!("{path}.");
        if !S::facts().any(|fact| fact.path.starts_with(&prefix)) {
            return Err(unknown_fact::<S>(&path, *at));
        }
    }
    let Some((call, at)) = &chain.method else { return Ok(()) };
    path.push('.');
    path.push_str(&call.name);
    match S::find(&path) {
        // In a body the window may be computed; then it is looked at when the body runs.
        Some(fact) if fact.is_windowed() => match call.args.as_slice() {
            [Expr::IntegerConstant(..)] => window(call, &path, *at).map(|_| ()),
            [_] => Ok(()),
            _ => window(call, &path, *at).map(|_| ()),
        },
        Some(_) => Err(Refusal::new(*at, format!("`{path}` is not a function"), &format!("write `{path}`"))),
        None if builtin::is_known(&call.name) => Ok(()),
        None => Err(unknown_fact::<S>(&path, *at)),
    }
}
