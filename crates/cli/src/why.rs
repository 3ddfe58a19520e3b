//! `waylay why`: the way a connection has taken, and what would become of it now.

use std::{error::Error, process::ExitCode};

use waylay_daemon::{
    protocol::{Answer, Request},
    why::{Subject, Taken, Why},
};

use crate::{
    args::{Format, Transport, WhyArgs},
    control::{self, OtherAnswer, REFUSED},
    journey,
    terminal::{self, Colour, Paint},
};

pub(crate) fn why(args: &WhyArgs) -> Result<ExitCode, Box<dyn Error>> {
    let (_client, answer) = match control::ask(&args.asking, &Request::Why(subject(args)))? {
        Ok(answered) => answered,
        Err(refused) => return Ok(refused),
    };
    let Answer::Why(why) = &answer else { return Err(OtherAnswer.into()) };
    control::print(&match args.asking.output {
        Format::Human => words(why, terminal::stdout()),
        Format::Json => control::json(&answer)?,
    })?;
    let permitted = why.now.as_ref().is_none_or(|now| now.permitted);
    Ok(if permitted { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

fn subject(args: &WhyArgs) -> Subject {
    match (args.flow, args.from, args.pid.zip(args.to)) {
        (Some(flow), _, _) => Subject::Flow(flow),
        (None, Some(from), _) => Subject::From(from),
        (None, None, Some((pid, to))) => Subject::Process { pid, to, udp: args.protocol == Transport::Udp },
        // clap has asked for one of them.
        (None, None, None) => Subject::Flow(0),
    }
}

fn words(why: &Why, paint: Paint) -> String {
    let mut text = String::new();
    if !why.taken.is_empty() {
        text += &paint.paint(Colour::Bold, &format!("{} -> {} has been led to\n", why.application, why.to));
        text += &steps(&why.taken);
    }
    for ended in &why.past {
        let from = ended.from.as_ref().map_or_else(String::new, |from| format!(" from {from}"));
        let (ago, lasted) = (ended.ago_s, milliseconds(ended.lasted_us));
        let title = format!("{} -> {}{from} was led to\n", why.application, why.to);
        text += &paint.paint(Colour::Bold, &title);
        text += &steps(&ended.taken);
        text += &format!("    and ended after {lasted} ms, {ago} s ago\n");
    }
    if !why.taken.is_empty() || !why.past.is_empty() {
        text += "if it were made now:\n";
    }
    match &why.now {
        Some(now) => text += &journey::words(now, paint),
        None => text += "its process has ended\n",
    }
    if !why.refused.is_empty() {
        text += "what has been refused to it lately:\n";
        why.refused.iter().for_each(|refused| text += &format!("    {refused}\n"));
    }
    text
}

fn steps(taken: &[Taken]) -> String {
    let step = |step: &Taken| {
        format!("    {} by {}, after {} ms\n", step.service, step.filter, milliseconds(step.after_us))
    };
    taken.iter().map(step).collect()
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}
