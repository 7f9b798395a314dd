//! From a policy to a program: a binary search for the range of numbers that a call is in, and at its end a verdict or
//! the tests of arguments. So a call costs about ten instructions, whichever it is.

use crate::bpf::{Instruction, Verdict, data, op};
use crate::policy::{Condition, Policy, Rule, Test};

/// `AUDIT_ARCH_X86_64` of linux/audit.h.
pub(crate) const X86_64: u32 = 0xc000_003e;
/// `__X32_SYSCALL_BIT`: numbers from here on are those of the x32 ABI.
pub(crate) const X32: u32 = 0x4000_0000;
/// What a tracer that wants a call skipped leaves as its number.
pub(crate) const SKIPPED: u32 = u32::MAX;
const ENOSYS: u16 = 38;
/// libseccomp's answer to a call of an architecture that the profile does not list.
pub(crate) const BAD_ARCHITECTURE: Verdict = Verdict::KILL_THREAD;

/// The numbers from `first` to where the next one begins.
#[derive(Clone, Copy, Debug)]
struct Range<'a> {
    first: u32,
    leaf: Leaf<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Leaf<'a> {
    Verdict(Verdict),
    /// The first whose conditions hold, else the default.
    Rules(&'a [Rule]),
}

pub(crate) fn program(policy: &Policy) -> Vec<Instruction> {
    let mut code = vec![
        Instruction::new(op::LOAD, data::ARCHITECTURE),
        Instruction::branch(op::IF_EQUAL, X86_64, 1, 0),
        Instruction::verdict(BAD_ARCHITECTURE),
        Instruction::new(op::LOAD, data::NUMBER),
        Instruction::branch(op::IF_GREATER_OR_EQUAL, X32, 0, 3),
        Instruction::branch(op::IF_EQUAL, SKIPPED, 0, 1),
        Instruction::verdict(policy.default),
        Instruction::verdict(x32(policy)),
    ];
    code.extend(search(&ranges(policy), policy.default));
    code
}

/// The guest's kernel has no x32 and would answer ENOSYS to whatever a profile allows of it.
pub(crate) fn x32(policy: &Policy) -> Verdict {
    if policy.lists_x32 { Verdict::errno(ENOSYS) } else { BAD_ARCHITECTURE }
}

pub(crate) fn not_there() -> Verdict {
    Verdict::errno(ENOSYS)
}

/// All numbers below the x32 ones, in order.
fn ranges(policy: &Policy) -> Vec<Range<'_>> {
    let default = Leaf::Verdict(policy.default);
    let mut ranges = Vec::new();
    let mut next = 0;
    for (number, rules) in &policy.rules {
        if *number > next {
            append(&mut ranges, next, default);
        }
        let leaf = match rules.as_slice() {
            [Rule { verdict, conditions }] if conditions.is_empty() => Leaf::Verdict(*verdict),
            rules => Leaf::Rules(rules),
        };
        append(&mut ranges, *number, leaf);
        next = number.saturating_add(1);
    }
    match policy.newest.map(|newest| newest.saturating_add(1)) {
        Some(beyond) => {
            if beyond > next {
                append(&mut ranges, next, default);
            }
            append(&mut ranges, beyond, Leaf::Verdict(not_there()));
        }
        None => append(&mut ranges, next, default),
    }
    ranges
}

/// Adds a range, unless the one before goes on in it.
fn append<'a>(ranges: &mut Vec<Range<'a>>, first: u32, leaf: Leaf<'a>) {
    match (ranges.last().map(|range| range.leaf), leaf) {
        (Some(Leaf::Verdict(before)), Leaf::Verdict(this)) if before == this => {}
        _ => ranges.push(Range { first, leaf }),
    }
}

/// The number is in A. Every way through ends in a verdict.
fn search(ranges: &[Range<'_>], default: Verdict) -> Vec<Instruction> {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let ([_, ..], [middle, ..]) = (lower, upper) else {
        return ranges.first().map_or_else(|| vec![Instruction::verdict(default)], |range| leaf(range.leaf, default));
    };
    let (below, above) = (search(lower, default), search(upper, default));
    let mut code = match u8::try_from(below.len()) {
        Ok(over) => vec![Instruction::branch(op::IF_GREATER_OR_EQUAL, middle.first, over, 0)],
        // A branch reaches 255 instructions, a jump as far as needed. Longer programs than that are refused.
        Err(_) => vec![
            Instruction::branch(op::IF_GREATER_OR_EQUAL, middle.first, 0, 1),
            Instruction::new(op::JUMP, u32::try_from(below.len()).unwrap_or(u32::MAX)),
        ],
    };
    code.extend(below);
    code.extend(above);
    code
}

fn leaf(leaf: Leaf<'_>, default: Verdict) -> Vec<Instruction> {
    match leaf {
        Leaf::Verdict(verdict) => vec![Instruction::verdict(verdict)],
        Leaf::Rules(rules) => {
            let mut code: Vec<_> = rules.iter().flat_map(rule).collect();
            code.push(Instruction::verdict(default));
            code
        }
    }
}

/// Where a branch leads.
#[derive(Clone, Copy)]
enum Target {
    Next,
    /// Behind this condition.
    Holds,
    /// Behind this rule.
    Fails,
}

struct Step {
    code: u16,
    value: u32,
    then: Target,
    otherwise: Target,
}

const fn step(code: u16, value: u32) -> Step {
    Step { code, value, then: Target::Next, otherwise: Target::Next }
}

const fn branch(code: u16, value: u32, then: Target, otherwise: Target) -> Step {
    Step { code, value, then, otherwise }
}

/// "If all conditions hold, the verdict", else on with what follows.
fn rule(rule: &Rule) -> Vec<Instruction> {
    let conditions: Vec<Vec<Step>> = rule.conditions.iter().map(|condition| steps(*condition)).collect();
    // At most six conditions of seven instructions: every distance fits into a branch.
    let mut left = conditions.iter().map(Vec::len).sum::<usize>();
    let mut code = Vec::new();
    for condition in conditions {
        let mut left_here = condition.len();
        for step in condition {
            left_here = left_here.saturating_sub(1);
            left = left.saturating_sub(1);
            let distance = |target| {
                let steps = match target {
                    Target::Next => 0,
                    Target::Holds => left_here,
                    // Over the verdict, too.
                    Target::Fails => left.saturating_add(1),
                };
                u8::try_from(steps).unwrap_or(u8::MAX)
            };
            let (then, otherwise) = (distance(step.then), distance(step.otherwise));
            code.push(Instruction::branch(step.code, step.value, then, otherwise));
        }
    }
    code.push(Instruction::verdict(rule.verdict));
    code
}

/// Arguments have 64 bits and A has 32: the upper half decides unless it is equal.
fn steps(condition: Condition) -> Vec<Step> {
    use Target::{Fails, Holds, Next};
    use op::{IF_EQUAL, IF_GREATER, IF_GREATER_OR_EQUAL};
    let lower = data::argument(condition.argument);
    let load = |offset: u32| step(op::LOAD, lower.saturating_add(offset));
    // Greater in the upper half; then equal in it and greater, or equal, in the lower one.
    let ordered = |value, last, yes: Target, no: Target| {
        let (high, low) = halves(value);
        vec![
            load(4),
            branch(IF_GREATER, high, yes, Next),
            branch(IF_EQUAL, high, Next, no),
            load(0),
            branch(last, low, yes, no),
        ]
    };
    match condition.test {
        Test::Equal(value) => {
            let (high, low) = halves(value);
            vec![load(4), branch(IF_EQUAL, high, Next, Fails), load(0), branch(IF_EQUAL, low, Next, Fails)]
        }
        Test::NotEqual(value) => {
            let (high, low) = halves(value);
            vec![load(4), branch(IF_EQUAL, high, Next, Holds), load(0), branch(IF_EQUAL, low, Fails, Next)]
        }
        Test::Greater(value) => ordered(value, IF_GREATER, Holds, Fails),
        Test::GreaterOrEqual(value) => ordered(value, IF_GREATER_OR_EQUAL, Holds, Fails),
        Test::Less(value) => ordered(value, IF_GREATER_OR_EQUAL, Fails, Holds),
        Test::LessOrEqual(value) => ordered(value, IF_GREATER, Fails, Holds),
        Test::Masked { mask, value } => {
            let ((mask_high, mask_low), (high, low)) = (halves(mask), halves(value));
            vec![
                load(4),
                step(op::AND, mask_high),
                branch(IF_EQUAL, high, Next, Fails),
                load(0),
                step(op::AND, mask_low),
                branch(IF_EQUAL, low, Next, Fails),
            ]
        }
    }
}

/// Upper and lower 32 bits.
fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}
