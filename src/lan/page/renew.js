(() => {
  const main = document.getElementById("main"), lost = document.getElementById("lost");
  const language = document.currentScript.dataset.language;
  const show = (page) => {
    const open = [...main.querySelectorAll("details[open]")].map((details) => details.id);
    main.innerHTML = page;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  };
  const renew = async () => {
    try {
      const answer = await fetch("/status.json?page=" + language, { signal: AbortSignal.timeout(4000) });
      if (!answer.ok) throw new Error(answer.status);
      show((await answer.json()).page);
      lost.hidden = true;
    } catch {
      lost.hidden = false;
    }
  };
  setInterval(() => { if (!document.hidden) renew(); }, 5000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) renew(); });
})();
