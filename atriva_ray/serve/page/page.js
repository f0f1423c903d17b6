"use strict";
(() => {
  // Only here, in memory, so that a page that is closed has forgotten it.
  let token = "";
  let file = null;
  let pictureUrl = "";
  let question = null;

  const by = (id) => document.getElementById(id);

  const make = (name, options = {}, ...children) => {
    const element = Object.assign(document.createElement(name), options);
    element.append(...children);
    return element;
  };

  const notice = (text) => { by("notice").textContent = text; };

  const ask = (path, options = {}) => {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    return fetch(path, {
      cache: "no-store", credentials: "omit", ...options, headers: { ...headers, ...options.headers },
    });
  };

  const reasonOf = async (answer) => {
    const text = await answer.text();
    try {
      return JSON.parse(text).error || text;
    } catch {
      return text.slice(0, 300) || answer.statusText;
    }
  };

  // The address that the browser came by is the one that works for its reader.
  const fillIn = () => {
    for (const span of document.querySelectorAll(".origin")) span.textContent = location.origin;
  };

  const refresh = async () => {
    const button = by("refresh");
    button.disabled = true;
    try {
      const answer = await ask("/");
      if (!answer.ok) throw new Error(await reasonOf(answer));
      // A document of its own: nothing of it runs or loads before its main part is taken over.
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      by("main").replaceChildren(...document.importNode(fresh.getElementById("main"), true).childNodes);
      const isLocked = Boolean(fresh.querySelector("#main > .empty"));
      notice(token && isLocked ? "The server does not know this token." : "");
      fillIn();
      choose(null);
    } catch (error) {
      notice(`The server did not answer: ${error.message}`);
    } finally {
      button.disabled = false;
    }
  };

  const choose = (chosen) => {
    if (pictureUrl) URL.revokeObjectURL(pictureUrl);
    pictureUrl = "";
    file = chosen;
    const preview = by("preview");
    if (!preview) return;
    preview.hidden = true;
    preview.removeAttribute("src");
    by("drop-text").hidden = false;
    by("drop-text").lastChild.textContent = file ? `${file.name} instead` : " or drop one here";
    by("send").disabled = !file;
    if (!file) return;
    pictureUrl = URL.createObjectURL(file);
    // A picture that the browser cannot show may be one that the model can still be asked about.
    preview.onload = () => { preview.hidden = false; by("drop-text").hidden = true; };
    preview.onerror = () => { by("drop-text").lastChild.textContent = ` — now ${file.name}`; };
    preview.src = pictureUrl;
  };

  const rowsOf = (output) => output.classes.map(({ index, label, score }) => ({
    label: label ?? `entry ${index}`, score: Number(score),
  }));

  const table = (rows, caption) => {
    const top = Math.max(...rows.map((row) => row.score), 0);
    // Probabilities are drawn as they are, anything else against the best one.
    const scale = rows.every((row) => row.score >= 0 && row.score <= 1) ? 1 : top;
    const lines = rows.map(({ label, score }) => {
      const bar = make("div", { className: "bar" });
      bar.style.width = `${scale > 0 ? Math.max(0, Math.min(1, score / scale)) * 100 : 0}%`;
      const track = make("td", { className: "track" }, bar);
      track.setAttribute("aria-hidden", "true");
      return make("tr", {},
        make("td", { className: "name" }, label),
        make("td", { className: "score" }, scale === 1 ? `${(score * 100).toFixed(1)} %` : score.toPrecision(4)),
        track);
    });
    const head = (text, span = 1) => make("th", { scope: "col", colSpan: span }, text);
    return make("div", { className: "scroll" }, make("table", {},
      make("caption", {}, caption),
      make("thead", {}, make("tr", {}, head("Label"), head("Score", 2))),
      make("tbody", {}, ...lines)));
  };

  const show = (...children) => by("result")?.replaceChildren(...children);

  const infer = async () => {
    if (!file) return;
    question?.abort();
    const mine = question = new AbortController();
    const path = by("model").value;
    const begun = performance.now();
    by("send").disabled = true;
    show(make("p", { className: "quiet" }, "The model looks at it …"));
    try {
      const answer = await ask(`${path}/infer-image`, {
        method: "POST", body: file, signal: mine.signal,
        headers: {
          Accept: "application/json", "Content-Type": file.type || "application/octet-stream",
        },
      });
      if (answer.status === 401) {
        by("token")?.focus();
        throw new Error("the server wants a token; give it above");
      }
      if (!answer.ok) throw new Error(await reasonOf(answer));
      const outputs = (await answer.json()).outputs.filter(({ classes }) => classes?.length);
      const milliseconds = Math.round(performance.now() - begun);
      const tables = outputs.map((output) => table(rowsOf(output), output.name));
      show(...tables, make("p", { className: "quiet" }, tables.length
        ? `${file.name}: ${milliseconds} ms, with the way there and back`
        : "The answer has no scores."));
    } catch (error) {
      if (error.name === "AbortError") return;
      show(make("p", { className: "wrong" }, `That did not work: ${error.message}`));
    } finally {
      if (question === mine && by("send")) by("send").disabled = !file;
    }
  };

  // On the document, since refreshing replaces what is below it.
  document.addEventListener("submit", (event) => {
    event.preventDefault();
    if (event.target.id === "token-form") {
      token = by("token").value.trim();
      by("token").value = "";
      by("token").placeholder = "in use";
      refresh();
    } else if (event.target.id === "try") {
      infer();
    }
  });
  document.addEventListener("click", (event) => {
    if (event.target.id === "refresh") refresh();
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "file" && event.target.files.length) choose(event.target.files[0]);
  });
  const drop = (event) => event.target.closest?.("#try") && by("drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();  // else a picture dropped beside the form replaces the page
    drop(event)?.classList.add("over");
  });
  document.addEventListener("dragleave", () => by("drop")?.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    by("drop")?.classList.remove("over");
    if (drop(event) && event.dataTransfer.files.length) {
      choose(event.dataTransfer.files[0]);
      infer();
    }
  });
  document.addEventListener("paste", (event) => {
    const pasted = event.clipboardData?.files[0];
    if (pasted && by("try")) choose(pasted);
  });

  fillIn();
})();
