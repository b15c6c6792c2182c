// The first visit: films that already play, made by the demo checkpoints. One click puts their settings into the form.

let known;

export async function showExamples(place, page) {
  const { el, replace, say, sayOf, server } = page;
  known ??= await server.get("examples/examples.json").catch(() => []);
  const about = await server.get("api/about").catch(() => ({}));
  if (place.dataset.key !== "examples") return;
  if (!known.length) return replace(place);
  const cards = known.map((one) => el("button", { class: "sm-example", type: "button", on: { click: () => page.use("text_to_film", one.values) } },
    Object.assign(el("video", { src: server.url(`examples/${one.film}`), loop: true, autoplay: true, playsinline: "", "aria-hidden": "true", tabindex: "-1" }), { muted: true }),
    el("span", {}, sayOf(one.title))));
  replace(place, el("p", { class: "sm-soft sm-lead" }, say("examples.lead")), el("div", { class: "sm-grid" }, cards), el("p", { class: "sm-soft" }, about.is_demo_only ? say("examples.demo") : ""));
}
