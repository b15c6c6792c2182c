// What was used: seconds of generation by day, of oneself; admins see everybody's. Folded away, and asked for only when somebody unfolds it.

const DAYS = 30;

export function usage(place, page) {
  const { el, replace, say, server } = page;
  let found = null;
  let isOpen = false;
  let asking = 0;
  draw();
  page.onLanguage(draw);
  page.onView((view) => view === "queue" && isOpen && look());

  async function look() {
    const mine = ++asking;
    try {
      const since = new Date(Date.now() - DAYS * 86400000).toISOString().slice(0, 10);
      const answer = await server.get(`api/usage?since=${since}`);
      if (mine !== asking) return;
      found = answer;
      draw();
    } catch (error) {
      page.fail(error);
    }
  }

  function draw() {
    const hasFocus = place.querySelector("summary") === document.activeElement && document.activeElement !== null;
    const details = el("details", { class: "sm-usage", open: isOpen }, el("summary", { class: "sm-soft" }, say("usage.title", { days: DAYS })), ...(found ? shown() : []));
    details.addEventListener("toggle", () => {
      if (details.open && !isOpen) look();
      isOpen = details.open;
    });
    replace(place, details);
    if (hasFocus) details.querySelector("summary").focus();
  }

  function shown() {
    const all = [...found.usage].sort((one, other) => other.day.localeCompare(one.day) || one.owner.localeCompare(other.owner));
    if (!all.length) return [el("p", { class: "sm-soft" }, say("usage.none"))];
    const hasOwners = new Set(all.map((one) => one.owner)).size > 1;
    const row = (name, cells, more) => el("tr", more, cells.filter((one) => one !== null).map((one, index, all) => el(name, index >= all.length - 2 ? { class: "sm-number" } : {}, one)));
    const titles = [say("usage.day"), hasOwners ? say("usage.who") : null, say("usage.runs"), say("usage.time")];
    const lines = all.map((one) => row("td", [one.day, hasOwners ? one.owner || "–" : null, one.runs, page.seconds(one.seconds)]));
    const sum = row("td", [say("usage.sum"), hasOwners ? "" : null, all.reduce((count, one) => count + one.runs, 0), page.seconds(found.seconds)], { class: "sm-sum" });
    return [
      el("table", {}, el("thead", {}, row("th", titles)), el("tbody", {}, lines, sum)),
      el("a", { class: "sm-button sm-quiet", href: server.url("api/usage.csv"), download: "" }, say("usage.csv")),
    ];
  }
}
