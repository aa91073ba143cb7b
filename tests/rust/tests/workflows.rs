//! What the tests run: workflows and their activities.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use temporalio_common::RetryPolicy;
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use temporalio_sdk::{
    ActivityCancellationType, ActivityOptions, ApplicationFailure, ChildWorkflowOptions,
    ContinueAsNewOptions, LocalActivityOptions, SyncWorkflowContext, TimerResult,
    WorkerOptionsBuilder, WorkflowCancellationToken, WorkflowContext, WorkflowContextView,
    WorkflowRegistrationError, WorkflowResult, WorkflowTermination,
};
use tokio::sync::Semaphore;
use tokio::time::sleep;

type Refusal = Box<dyn std::error::Error + Send + Sync>;

/// The workers of a test share one, through its clones.
#[derive(Clone)]
pub struct Activities {
    calls: Arc<Mutex<Vec<String>>>,
    /// `held` does not end before it gets a permit.
    pub gate: Arc<Semaphore>,
}

impl Default for Activities {
    fn default() -> Self {
        Activities {
            calls: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Activities {
    /// What was called, in order: once for every attempt.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn called(&self, what: &str) {
        self.calls.lock().unwrap().push(what.to_owned());
    }
}

#[activities]
impl Activities {
    #[activity]
    pub async fn greet(_: ActivityContext, name: String) -> Result<String, ActivityError> {
        Ok(format!("Hello, {name}!"))
    }

    #[activity]
    pub async fn step(
        self: Arc<Self>,
        _: ActivityContext,
        name: String,
    ) -> Result<String, ActivityError> {
        self.called(&name);
        Ok(name)
    }

    #[activity]
    pub async fn held(self: Arc<Self>, _: ActivityContext) -> Result<(), ActivityError> {
        self.called("held");
        self.gate.acquire().await?.forget();
        Ok(())
    }

    #[activity]
    pub async fn third_time_lucky(
        self: Arc<Self>,
        context: ActivityContext,
    ) -> Result<u32, ActivityError> {
        let attempt = context.info().attempt;
        self.called(&format!("attempt {attempt}"));
        if attempt < 3 {
            return Err(anyhow::anyhow!("attempt {attempt} failed").into());
        }
        Ok(attempt)
    }

    #[activity]
    pub async fn refuse(self: Arc<Self>, _: ActivityContext) -> Result<(), ActivityError> {
        self.called("refuse");
        let failure = ApplicationFailure::builder("not today")
            .type_name("Refused".to_owned())
            .non_retryable(true)
            .details("until tomorrow".to_owned())
            .build();
        Err(ActivityError::application(failure))
    }

    /// The first attempt goes silent after a heartbeat, and answers when the second one is under way, which
    /// says what the first one reported.
    #[activity]
    pub async fn go_silent(context: ActivityContext) -> Result<String, ActivityError> {
        if context.info().attempt == 1 {
            context.record_heartbeat("half way".to_owned()).await?;
            sleep(Duration::from_millis(800)).await;
            return Ok("too late".to_owned());
        }
        sleep(Duration::from_millis(400)).await;
        Ok(context
            .heartbeat_details()
            .deserialize()?
            .unwrap_or_default())
    }

    #[activity]
    pub async fn until_cancelled(context: ActivityContext) -> Result<String, ActivityError> {
        while !context.is_cancelled() {
            context.record_heartbeat(()).await?;
            sleep(Duration::from_millis(50)).await;
        }
        Ok("tidied up".to_owned())
    }
}

fn soon() -> RetryPolicy {
    RetryPolicy::builder()
        .initial_interval(Duration::from_millis(50))
        .backoff_coefficient(1.0)
        .build()
}

fn options() -> ActivityOptions {
    ActivityOptions::with_start_to_close_timeout(Duration::from_secs(20))
        .retry_policy(soon())
        .build()
}

fn local_options() -> LocalActivityOptions {
    LocalActivityOptions::builder()
        .start_to_close_timeout(Duration::from_secs(20))
        .retry_policy(soon())
        .build()
}

#[workflow]
#[derive(Default)]
pub struct Greeting;

#[workflow_methods]
impl Greeting {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>, name: String) -> WorkflowResult<String> {
        Ok(context
            .execute_activity(Activities::greet, name, options())
            .await?)
    }
}

#[workflow]
#[derive(Default)]
pub struct Retried;

#[workflow_methods]
impl Retried {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>) -> WorkflowResult<u32> {
        Ok(context
            .execute_activity(Activities::third_time_lucky, (), options())
            .await?)
    }
}

#[workflow]
#[derive(Default)]
pub struct Refused;

#[workflow_methods]
impl Refused {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>) -> WorkflowResult<()> {
        Ok(context
            .execute_activity(Activities::refuse, (), options())
            .await?)
    }
}

#[workflow]
#[derive(Default)]
pub struct Napping;

#[workflow_methods]
impl Napping {
    /// Answers how long it slept by the workflow's clock, in milliseconds.
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>, ms: u64) -> WorkflowResult<u64> {
        let before = context.workflow_time().unwrap();
        context.timer(Duration::from_millis(ms)).await;
        let slept = context
            .workflow_time()
            .unwrap()
            .duration_since(before)
            .unwrap();
        Ok(slept.as_millis() as u64)
    }
}

/// Adds what signals and updates bring, until told to finish.
#[workflow]
#[derive(Default)]
pub struct Adding {
    total: i64,
    finished: bool,
}

#[workflow_methods]
impl Adding {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>) -> WorkflowResult<i64> {
        context.wait_condition(|adding| adding.finished).await?;
        Ok(context.state(|adding| adding.total))
    }

    #[signal]
    pub fn add(&mut self, _: &mut SyncWorkflowContext<Self>, amount: i64) {
        self.total += amount;
    }

    #[signal]
    pub fn finish(&mut self, _: &mut SyncWorkflowContext<Self>) {
        self.finished = true;
    }

    #[query]
    pub fn total(&self, _: &WorkflowContextView) -> i64 {
        self.total
    }

    #[update]
    pub async fn add_and_get(context: &mut WorkflowContext<Self>, amount: i64) -> i64 {
        context.timer(Duration::from_millis(20)).await;
        context.state_mut(|adding| adding.total += amount);
        context.state(|adding| adding.total)
    }

    #[update_validator(add_and_get)]
    fn only_upwards(&self, _: &WorkflowContextView, amount: &i64) -> Result<(), Refusal> {
        if *amount < 0 {
            Err("only upwards".into())
        } else {
            Ok(())
        }
    }
}

#[workflow]
#[derive(Default)]
pub struct Parent;

#[workflow_methods]
impl Parent {
    #[run]
    pub async fn run(
        context: &mut WorkflowContext<Self>,
        name: String,
    ) -> WorkflowResult<(String, i64)> {
        let greeting = context
            .start_child_workflow(Greeting::run, name, ChildWorkflowOptions::default())
            .await?;
        let greeted = greeting.result().await?;

        let id = format!("{}-adding", context.workflow_id());
        let options = ChildWorkflowOptions::workflow_id(id.clone());
        let adding = context
            .start_child_workflow(Adding::run, (), options)
            .await?;
        adding.signal(Adding::add, 2, Default::default()).await?;
        let external = context.external_workflow(id, None);
        external.signal(Adding::add, 3, Default::default()).await?;
        external
            .signal(Adding::finish, (), Default::default())
            .await?;
        Ok((greeted, adding.result().await?))
    }
}

#[workflow]
#[derive(Default)]
pub struct Countdown;

#[workflow_methods]
impl Countdown {
    /// Answers how many runs there were, and which one the last one continues.
    #[run]
    pub async fn run(
        context: &mut WorkflowContext<Self>,
        (left, runs): (u32, u32),
    ) -> WorkflowResult<(u32, Option<String>)> {
        if left > 0 {
            context.continue_as_new((left - 1, runs + 1), ContinueAsNewOptions::default())?;
        }
        Ok((
            runs,
            context.info().continued_from_run_id().map(str::to_owned),
        ))
    }
}

#[workflow]
#[derive(Default)]
pub struct Stubborn;

#[workflow_methods]
impl Stubborn {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>) -> WorkflowResult<()> {
        let TimerResult::Cancelled = context.timer(Duration::from_secs(3_600)).await else {
            return Ok(());
        };
        // A token of its own: that of the workflow is cancelled.
        let mut uncancelled = options();
        uncancelled.cancellation_token = Some(WorkflowCancellationToken::new());
        context
            .execute_activity(Activities::step, "tidy up".to_owned(), uncancelled)
            .await?;
        Err(WorkflowTermination::cancelled())
    }
}

#[workflow]
#[derive(Default)]
pub struct CancelsActivity;

#[workflow_methods]
impl CancelsActivity {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>) -> WorkflowResult<String> {
        let token = WorkflowCancellationToken::new();
        let options = ActivityOptions::with_start_to_close_timeout(Duration::from_secs(20))
            .heartbeat_timeout(Duration::from_secs(2))
            .cancellation_type(ActivityCancellationType::WaitCancellationCompleted)
            .cancellation_token(token.clone())
            .build();
        let running = context.execute_activity(Activities::until_cancelled, (), options);
        context.timer(Duration::from_millis(300)).await;
        token.cancel();
        Ok(running.await?)
    }
}

#[workflow]
#[derive(Default)]
pub struct Locally;

#[workflow_methods]
impl Locally {
    #[run]
    pub async fn run(
        context: &mut WorkflowContext<Self>,
        name: String,
    ) -> WorkflowResult<(String, u32)> {
        let greeted = context
            .execute_local_activity(Activities::greet, name, local_options())
            .await?;
        let lucky = context
            .execute_local_activity(Activities::third_time_lucky, (), local_options())
            .await?;
        Ok((greeted, lucky))
    }
}

#[workflow]
#[derive(Default)]
pub struct Heartbeating;

#[workflow_methods]
impl Heartbeating {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>) -> WorkflowResult<String> {
        let options = ActivityOptions::with_start_to_close_timeout(Duration::from_secs(20))
            .heartbeat_timeout(Duration::from_millis(500))
            .retry_policy(soon())
            .build();
        Ok(context
            .execute_activity(Activities::go_silent, (), options)
            .await?)
    }
}

#[workflow]
#[derive(Default)]
pub struct TwoSteps;

#[workflow_methods]
impl TwoSteps {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>, ms: u64) -> WorkflowResult<String> {
        let first = context
            .execute_activity(Activities::step, "first".to_owned(), options())
            .await?;
        context.timer(Duration::from_millis(ms)).await;
        let second = context
            .execute_activity(Activities::step, "second".to_owned(), options())
            .await?;
        Ok(format!("{first}, {second}"))
    }
}

#[workflow]
#[derive(Default)]
pub struct Holding;

#[workflow_methods]
impl Holding {
    #[run]
    pub async fn run(context: &mut WorkflowContext<Self>) -> WorkflowResult<()> {
        Ok(context
            .execute_activity(Activities::held, (), options())
            .await?)
    }
}

/// All workflows of this file.
pub fn register(
    options: WorkerOptionsBuilder,
) -> Result<WorkerOptionsBuilder, WorkflowRegistrationError> {
    options
        .register_workflow::<Greeting>()?
        .register_workflow::<Retried>()?
        .register_workflow::<Refused>()?
        .register_workflow::<Napping>()?
        .register_workflow::<Adding>()?
        .register_workflow::<Parent>()?
        .register_workflow::<Countdown>()?
        .register_workflow::<Stubborn>()?
        .register_workflow::<CancelsActivity>()?
        .register_workflow::<Locally>()?
        .register_workflow::<Heartbeating>()?
        .register_workflow::<TwoSteps>()?
        .register_workflow::<Holding>()
}
