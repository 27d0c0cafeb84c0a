//! A parsed template again, with a filter around everything that makes a value which holds others.
//!
//! The engine's own operators build, repeat and join lists without asking anybody. So each of them
//! gets the filter [`SETTLED`] around its result, and what is assigned to an attribute gets
//! [`HELD`]. A variable gets [`GROWN`] where it is used as a whole, since a namespace may have
//! grown since it was made. Everything else stays as it was parsed.

use std::collections::BTreeSet;

use minijinja::machinery::ast::{
    AutoEscape, BinOp, BinOpKind, Break, Call, CallArg, CallBlock, Compare, CompareOp, Const,
    Continue, Do, EmitExpr, EmitRaw, Expr, Filter, FilterBlock, ForLoop, GetAttr, GetItem, IfCond,
    IfExpr, List, Macro, Map, Set, SetBlock, Slice, Spanned, Stmt, Template, Test, Tuple, UnaryOp,
    UnaryOpKind, Var, WithBlock,
};

use super::values::{GROWN, HELD, SETTLED};

/// Variables that a template reads, and those that it sets somewhere.
#[derive(Debug, Default)]
pub(super) struct Names {
    read: BTreeSet<String>,
    set: BTreeSet<String>,
}

impl Names {
    /// Variables that are read and set nowhere, sorted.
    pub(super) fn undeclared(&self) -> Vec<String> {
        self.read.difference(&self.set).cloned().collect()
    }

    fn sets(&mut self, name: &str) {
        self.set.insert(name.to_owned());
    }
}

fn again<T, U>(node: &Spanned<T>, content: U) -> Spanned<U> {
    Spanned::new(content, node.span())
}

fn statements<'a>(all: &[Stmt<'a>], names: &mut Names) -> Vec<Stmt<'a>> {
    all.iter().map(|one| statement(one, names)).collect()
}

/// A statement with its expressions guarded.
pub(super) fn statement<'a>(stmt: &Stmt<'a>, names: &mut Names) -> Stmt<'a> {
    match stmt {
        Stmt::Template(node) => {
            let children = statements(&node.children, names);
            Stmt::Template(again(node, Template { children }))
        }
        Stmt::EmitExpr(node) => {
            Stmt::EmitExpr(again(node, EmitExpr { expr: printed(&node.expr, names) }))
        }
        Stmt::EmitRaw(node) => Stmt::EmitRaw(again(node, EmitRaw { raw: node.raw })),
        Stmt::ForLoop(node) => Stmt::ForLoop(again(node, for_loop(node, names))),
        Stmt::IfCond(node) => Stmt::IfCond(again(node, condition(node, names))),
        Stmt::WithBlock(node) => Stmt::WithBlock(again(node, with_block(node, names))),
        Stmt::Set(node) => {
            let target = target(&node.target, names);
            let expr = match &node.target {
                Expr::GetAttr(_) => filtered(HELD, expression(&node.expr, names)),
                _ => expression(&node.expr, names),
            };
            Stmt::Set(again(node, Set { target, expr }))
        }
        Stmt::SetBlock(node) => {
            let target = target(&node.target, names);
            let filter = node.filter.as_ref().map(|filter| expression(filter, names));
            let body = statements(&node.body, names);
            Stmt::SetBlock(again(node, SetBlock { target, filter, body }))
        }
        Stmt::AutoEscape(node) => {
            let enabled = expression(&node.enabled, names);
            let body = statements(&node.body, names);
            Stmt::AutoEscape(again(node, AutoEscape { enabled, body }))
        }
        Stmt::FilterBlock(node) => {
            let filter = expression(&node.filter, names);
            let body = statements(&node.body, names);
            let filter_span = node.filter_span;
            Stmt::FilterBlock(again(node, FilterBlock { filter, filter_span, body }))
        }
        Stmt::Macro(node) => {
            names.sets(node.name);
            Stmt::Macro(again(node, declaration(node, names)))
        }
        Stmt::CallBlock(node) => {
            let call = again(&node.call, call(&node.call, names));
            let macro_decl = again(&node.macro_decl, declaration(&node.macro_decl, names));
            let call_expr_span = node.call_expr_span;
            Stmt::CallBlock(again(node, CallBlock { call, call_expr_span, macro_decl }))
        }
        Stmt::Continue(node) => Stmt::Continue(again(node, Continue)),
        Stmt::Break(node) => Stmt::Break(again(node, Break)),
        Stmt::Do(node) => {
            let call = again(&node.call, call(&node.call, names));
            Stmt::Do(again(node, Do { call }))
        }
    }
}

fn for_loop<'a>(node: &ForLoop<'a>, names: &mut Names) -> ForLoop<'a> {
    names.sets("loop");
    ForLoop {
        target: target(&node.target, names),
        iter: expression(&node.iter, names),
        filter_expr: node.filter_expr.as_ref().map(|filter| expression(filter, names)),
        recursive: node.recursive,
        body: statements(&node.body, names),
        else_body: statements(&node.else_body, names),
    }
}

fn condition<'a>(node: &IfCond<'a>, names: &mut Names) -> IfCond<'a> {
    IfCond {
        expr: expression(&node.expr, names),
        true_body: statements(&node.true_body, names),
        false_body: statements(&node.false_body, names),
    }
}

fn with_block<'a>(node: &WithBlock<'a>, names: &mut Names) -> WithBlock<'a> {
    let assignments = node.assignments.iter();
    WithBlock {
        assignments: assignments
            .map(|(name, value)| (target(name, names), expression(value, names)))
            .collect(),
        body: statements(&node.body, names),
    }
}

fn declaration<'a>(node: &Macro<'a>, names: &mut Names) -> Macro<'a> {
    names.sets("caller");
    Macro {
        name: node.name,
        args: node.args.iter().map(|name| target(name, names)).collect(),
        defaults: node.defaults.iter().map(|value| expression(value, names)).collect(),
        body: statements(&node.body, names),
    }
}

/// What is assigned to: a name, an attribute of one, or a list of these.
fn target<'a>(expr: &Expr<'a>, names: &mut Names) -> Expr<'a> {
    match expr {
        Expr::Var(node) => {
            names.sets(node.id);
            Expr::Var(again(node, Var { id: node.id }))
        }
        Expr::List(node) => {
            let items = node.items.iter().map(|item| target(item, names)).collect();
            Expr::List(again(node, List { items }))
        }
        other => expression(other, names),
    }
}

fn filtered<'a>(name: &'static str, expr: Expr<'a>) -> Expr<'a> {
    let span = expr.span();
    Expr::Filter(Spanned::new(Filter { name, expr: Some(expr), args: Vec::new() }, span))
}

/// An expression that is printed. The formatter weighs the result of a call, which the engine knows
/// by its form.
fn printed<'a>(expr: &Expr<'a>, names: &mut Names) -> Expr<'a> {
    match expr {
        Expr::Call(node) => Expr::Call(again(node, call(node, names))),
        other => expression(other, names),
    }
}

/// An expression that something else reads as a whole.
fn operand<'a>(expr: &Expr<'a>, names: &mut Names) -> Expr<'a> {
    match expr {
        Expr::Var(_) => filtered(GROWN, expression(expr, names)),
        other => expression(other, names),
    }
}

fn optional<'a>(expr: Option<&Expr<'a>>, names: &mut Names) -> Option<Expr<'a>> {
    expr.map(|expr| expression(expr, names))
}

fn expression<'a>(expr: &Expr<'a>, names: &mut Names) -> Expr<'a> {
    let made = match expr {
        Expr::List(node) => {
            let items = expressions(&node.items, names);
            Expr::List(again(node, List { items }))
        }
        Expr::Tuple(node) => {
            let items = expressions(&node.items, names);
            Expr::Tuple(again(node, Tuple { items }))
        }
        Expr::Map(node) => {
            let keys = expressions(&node.keys, names);
            let values = expressions(&node.values, names);
            Expr::Map(again(node, Map { keys, values }))
        }
        Expr::Slice(node) => {
            let expr = operand(&node.expr, names);
            let start = optional(node.start.as_ref(), names);
            let stop = optional(node.stop.as_ref(), names);
            let step = optional(node.step.as_ref(), names);
            Expr::Slice(again(node, Slice { expr, start, stop, step }))
        }
        Expr::Filter(node) => {
            let expr = node.expr.as_ref().map(|expr| operand(expr, names));
            let args = arguments(&node.args, names);
            Expr::Filter(again(node, Filter { name: node.name, expr, args }))
        }
        Expr::Call(node) => Expr::Call(again(node, call(node, names))),
        Expr::BinOp(node) => Expr::BinOp(again(node, binary(node, names))),
        other => return plain(other, names),
    };
    // What is known when a template is compiled is no larger than its source.
    match &made {
        Expr::List(_) | Expr::Tuple(_) | Expr::Map(_) if made.as_const().is_some() => made,
        Expr::BinOp(node) if !makes_values(node.op) => made,
        _ => filtered(SETTLED, made),
    }
}

fn makes_values(operator: BinOpKind) -> bool {
    matches!(operator, BinOpKind::Add | BinOpKind::Mul)
}

/// Expressions whose value holds no others, or is part of one that there is.
fn plain<'a>(expr: &Expr<'a>, names: &mut Names) -> Expr<'a> {
    match expr {
        Expr::Var(node) => {
            names.read.insert(node.id.to_owned());
            Expr::Var(again(node, Var { id: node.id }))
        }
        Expr::Const(node) => Expr::Const(again(node, Const { value: node.value.clone() })),
        Expr::UnaryOp(node) => {
            let expr = expression(&node.expr, names);
            Expr::UnaryOp(again(node, UnaryOp { op: same_op(&node.op), expr }))
        }
        Expr::Compare(node) => {
            let expr = operand(&node.expr, names);
            let ops = node.ops.iter();
            let ops = ops.map(|next| CompareOp { op: next.op, expr: operand(&next.expr, names) });
            let ops = ops.collect();
            Expr::Compare(again(node, Compare { expr, ops }))
        }
        Expr::IfExpr(node) => {
            let test_expr = expression(&node.test_expr, names);
            let true_expr = operand(&node.true_expr, names);
            let false_expr = node.false_expr.as_ref().map(|expr| operand(expr, names));
            Expr::IfExpr(again(node, IfExpr { test_expr, true_expr, false_expr }))
        }
        Expr::Test(node) => {
            let expr = operand(&node.expr, names);
            let args = arguments(&node.args, names);
            Expr::Test(again(node, Test { name: node.name, expr, args }))
        }
        Expr::GetAttr(node) => {
            let expr = expression(&node.expr, names);
            Expr::GetAttr(again(node, GetAttr { expr, name: node.name }))
        }
        Expr::GetItem(node) => {
            let expr = expression(&node.expr, names);
            let subscript_expr = operand(&node.subscript_expr, names);
            Expr::GetItem(again(node, GetItem { expr, subscript_expr }))
        }
        made => expression(made, names),
    }
}

fn expressions<'a>(all: &[Expr<'a>], names: &mut Names) -> Vec<Expr<'a>> {
    all.iter().map(|one| operand(one, names)).collect()
}

fn binary<'a>(node: &BinOp<'a>, names: &mut Names) -> BinOp<'a> {
    let left = operand(&node.left, names);
    let right = operand(&node.right, names);
    BinOp { op: node.op, left, right }
}

fn call<'a>(node: &Call<'a>, names: &mut Names) -> Call<'a> {
    Call { expr: expression(&node.expr, names), args: arguments(&node.args, names) }
}

fn arguments<'a>(all: &[CallArg<'a>], names: &mut Names) -> Vec<CallArg<'a>> {
    let again = |argument: &CallArg<'a>| match argument {
        CallArg::Pos(value) => CallArg::Pos(operand(value, names)),
        CallArg::Kwarg(name, value) => CallArg::Kwarg(name, operand(value, names)),
        CallArg::PosSplat(value) => CallArg::PosSplat(operand(value, names)),
        CallArg::KwargSplat(value) => CallArg::KwargSplat(operand(value, names)),
    };
    all.iter().map(again).collect()
}

/// The engine's type of operators can be neither copied nor cloned.
fn same_op(op: &UnaryOpKind) -> UnaryOpKind {
    if matches!(op, UnaryOpKind::Not) { UnaryOpKind::Not } else { UnaryOpKind::Neg }
}
