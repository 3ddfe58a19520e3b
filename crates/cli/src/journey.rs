//! A connection from its application to its end, in words.

use waylay_daemon::journey::{Journey, JourneyStage};

use crate::terminal::{Colour, Paint};

/// Leg by leg, with what each service and each sublayer says.
pub(crate) fn words(journey: &Journey, paint: Paint) -> String {
    let mut text = String::new();
    for stage in &journey.stages {
        let from = paint.paint(Colour::Bold, &stage.from);
        text += &format!("{from} -> {} ({})\n", stage.to, stage.protocol);
        for step in &stage.trace {
            text += &format!("    {step}\n");
        }
        text += &format!("  {}\n", verdict(stage));
    }
    text + &summary(journey, paint) + "\n"
}

fn verdict(stage: &JourneyStage) -> String {
    match (&stage.service, &stage.errno) {
        (Some(service), _) => format!("goes to service {service:?}"),
        (None, Some(errno)) => format!("fails with {errno}"),
        (None, None) => "goes to the destination".to_owned(),
    }
}

fn summary(journey: &Journey, paint: Paint) -> String {
    let through = match &journey.services[..] {
        [] => "directly".to_owned(),
        services => format!("through {}", services.join(", ")),
    };
    match journey.refusal() {
        None => format!("{}, {through}", paint.paint(Colour::Green, "permitted")),
        Some(reason) => format!("{}: {reason}", paint.paint(Colour::Red, "refused")),
    }
}
