(() => {
  "use strict";
  const root = document.documentElement, languages = ["en", "zh-Hans"], key = "resjax-language";
  const remembered = () => { try { return localStorage.getItem(key); } catch { return null; } };
  const remember = language => { try { localStorage.setItem(key, language); } catch { /* a file may have no storage */ } };
  const linked = () => ({ en: "en", zh: "zh-Hans" })[location.hash.slice(1, 3)];
  const preferred = () => languages.find(one => one === (linked() || remembered()))
    || (navigator.language.toLowerCase().startsWith("zh") ? "zh-Hans" : "en");

  const article = language => document.querySelector(`main[lang="${language}"]`);
  const show = language => {
    root.lang = root.dataset.language = language;
    for (const button of document.querySelectorAll(".switch button")) {
      const on = button.dataset.language === language;
      button.setAttribute("aria-pressed", on);
      if (on) document.title = button.dataset.title;
    }
  };
  const change = language => {  // and stay at the same section
    const before = [...article(root.lang).querySelectorAll("section")];
    const index = before.findLastIndex(section => section.getBoundingClientRect().top < innerHeight / 3);
    const part = index < 0 ? 0 : (innerHeight / 3 - before[index].getBoundingClientRect().top) / before[index].offsetHeight;
    show(language);
    remember(language);
    history.replaceState(null, "", location.pathname + location.search);
    const after = article(language).querySelectorAll("section")[index];
    if (after) scrollBy({ top: after.getBoundingClientRect().top + part * after.offsetHeight - innerHeight / 3, behavior: "instant" });
  };

  show(preferred());
  document.addEventListener("DOMContentLoaded", () => {
    show(root.lang);
    document.querySelector(".switch").addEventListener("click", event => {
      const language = event.target.dataset.language;
      if (language && language !== root.lang) change(language);
    });
    addEventListener("hashchange", () => { if (linked()) show(linked()); });
  });
})();
