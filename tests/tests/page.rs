//! The live page in a real browser, without a network.

use anyhow::{Result, ensure};
use tests::agent::Agent;
use tests::browser::Browser;
use tests::fixture::{Client, Language, Server};
use tests::needs;
use tests::plan::Step;

/// Chooses a value in a filter of the page, as a user does.
fn filter(browser: &mut Browser, name: &str, value: &str) -> Result<()> {
    let expression = format!(
        "(() => {{ const field = document.getElementById('filter-{name}'); field.value = '{value}'; \
         field.dispatchEvent(new Event('input', {{ bubbles: true }})); return field.value; }})()"
    );
    let chosen = browser.evaluate(&expression)?;
    ensure!(chosen == value, "the filter {name} has no {value}: {chosen}");
    Ok(())
}

/// An expression that is true when the page shows spans, all with `every` in their row.
fn only(every: &str) -> String {
    format!(
        "(() => {{ const rows = [...document.querySelectorAll('#spans tr')].map((row) => row.innerText); \
         return rows.length > 0 && rows.every((row) => row.includes('{every}')); }})()"
    )
}

/// An expression that is true when an element with this id shows `text`.
fn shows(id: &str, text: &str) -> String {
    format!("document.getElementById('{id}')?.innerText.includes('{text}')")
}

#[test]
fn shows_spans_as_they_come_and_filters_them() -> Result<()> {
    needs!("root", "python", "chromium");
    let server = Server::start_in(Language::Python, &[("OTEL_SERVICE_NAME", "shop-window")])?;
    let agent = Agent::on(server.port)?;
    let run = |steps: &[Step]| Client::run(Language::Python, &server.base(), steps, &[]);
    run(&(0..20).map(|i| Step::get(format!("/item/{i}?id=before"))).collect::<Vec<_>>())?;
    agent.wait_for_spans(40)?;

    let mut browser = Browser::open(&format!("http://{}/", agent.address))?;
    browser.until(&shows("spans", "/item/19"))?;
    browser.until(&shows("services", "shop-window"))?;
    // What happens while the page is open appears without anybody's doing.
    run(&[Step::get("/status/503?id=live"), Step::get("/hello?id=live")])?;
    browser.until(&shows("spans", "/hello"))?;
    browser.until(&shows("spans", "503"))?;

    filter(&mut browser, "status", "5xx")?;
    browser.until(&only("503"))?;
    filter(&mut browser, "status", "")?;
    filter(&mut browser, "path", "/item/7")?;
    browser.until(&only("/item/7"))?;
    filter(&mut browser, "path", "")?;
    filter(&mut browser, "service", "shop-window")?;
    browser.until(&only("shop-window"))?;

    let thrown = browser.exceptions();
    ensure!(thrown.is_empty(), "{thrown:?}");
    // Works offline: nothing is asked for anywhere else.
    let own = format!("http://{}/", agent.address);
    let asked = browser.asked_for();
    let elsewhere: Vec<_> = asked.iter().filter(|url| !url.starts_with(&own) && !url.starts_with("data:")).collect();
    ensure!(asked.iter().any(|url| url.ends_with("/app.js")) && elsewhere.is_empty(), "{asked:?}");
    Ok(())
}

/// A span's trace as a waterfall, and the map of services.
#[test]
fn shows_traces_and_who_calls_whom() -> Result<()> {
    needs!("root", "python", "chromium");
    let inner = Server::start_in(Language::Python, &[("OTEL_SERVICE_NAME", "cellar")])?;
    let agent = Agent::on(inner.port)?;
    Client::run(Language::Python, &inner.base(), &[Step::get("/item/1?id=whole")], &[])?;
    agent.wait_for_spans(2)?;
    let mut browser = Browser::open(&format!("http://{}/", agent.address))?;
    browser.until(&shows("spans", "/item/1"))?;
    browser.evaluate("document.querySelector('#spans button').click()")?;
    // The client's span, and the server's under it, known by the socket.
    browser.until(
        "(() => { const rows = [...document.querySelectorAll('.waterfall li')].map((row) => row.innerText); \
         return rows.length === 2 && rows[1].includes('cellar') && rows[1].includes('socket'); })()",
    )?;
    browser.evaluate("document.getElementById('map').open = true")?;
    browser.until("[...document.querySelectorAll('#map text')].some((text) => text.textContent === 'cellar')")?;
    browser.until("document.querySelectorAll('#map path').length === 1")?;
    let thrown = browser.exceptions();
    ensure!(thrown.is_empty(), "{thrown:?}");
    Ok(())
}

/// Text from the network is shown, not run.
#[test]
fn what_peers_send_is_text() -> Result<()> {
    needs!("root", "python", "chromium");
    let server = Server::start(Language::Python)?;
    let agent = Agent::on(server.port)?;
    let attack = "/item/<img/src=x/onerror=window.hacked=1>?q='\"><script>window.hacked=1</script>";
    Client::run(Language::Python, &server.base(), &[Step::get(attack), Step::get("/hello?id=2")], &["--mode", "raw"])?;
    agent.wait_for_spans(4)?;
    let mut browser = Browser::open(&format!("http://{}/", agent.address))?;
    browser.until(&shows("spans", "/hello"))?;
    browser.until(&shows("spans", "onerror"))?;
    ensure!(browser.evaluate("window.hacked === undefined")? == true, "a request's path runs as a script");
    Ok(())
}

/// The browser is one that can say no.
#[test]
fn the_browser_sees_what_a_page_does() -> Result<()> {
    needs!("chromium");
    let page = "data:text/html,<p id=a>old</p><script>setTimeout(()=>{a.textContent='new';fetch('http://127.0.0.1:9/x').catch(()=>0);throw Error('t')},50)</script>";
    let mut browser = Browser::open(page)?;
    browser.until(&shows("a", "new"))?;
    ensure!(browser.exceptions().len() == 1, "{:?}", browser.exceptions());
    ensure!(browser.asked_for().iter().any(|url| url == "http://127.0.0.1:9/x"), "{:?}", browser.asked_for());
    ensure!(browser.evaluate("no_such_name").is_err());
    Ok(())
}
