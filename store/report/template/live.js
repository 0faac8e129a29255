// Where the page is served while cells run: it is drawn anew once something has ended, at the same place.

const SECONDS_BETWEEN = 5;

function setUpLive() {
  if (!report.live) return;
  const told = el("span", { class: "quiet", "aria-live": "polite" }, "live");
  document.querySelector(".tools").prepend(told);
  const place = Number(sessionStorage.getItem("place"));
  sessionStorage.removeItem("place");
  if (place) settled(() => scrollTo(0, place));
  const look = async () => {
    try {
      const answer = await fetch("/state");
      if (!answer.ok) throw new Error(answer.statusText);
      told.textContent = "live";
      if ((await answer.text()) === report.live) return;
      sessionStorage.setItem("place", String(scrollY));
      location.reload();
    } catch {
      told.textContent = "not live: the server has ended, or cannot read the store";
    }
  };
  setInterval(() => document.visibilityState === "visible" && look(), 1000 * SECONDS_BETWEEN);
}
