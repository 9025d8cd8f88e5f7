// The gallery: thumbnails of films, a player, and links to copy. Without it, each entry is a plain link to its media.
(() => {
  'use strict';
  const cards = [...document.querySelectorAll('li[data-type]')];
  const players = cards.filter((card) => /^(image|video|audio)\//.test(card.dataset.type));
  const make = (tag, set = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), set);
    element.append(...children);
    return element;
  };
  const status = make('p', { className: 'v' });
  status.setAttribute('role', 'status');
  document.body.append(status);

  // Times in the reader's zone and language.
  for (const time of document.querySelectorAll('time'))
    time.textContent = new Date(time.dateTime).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });

  document.querySelector('select')?.addEventListener('change', (event) => event.target.form.submit());

  // The browser makes the first picture of a film from a range of it, once it is in sight.
  const seen = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        target.preload = 'metadata';
        target.src = target.dataset.src;
      }
    },
    { rootMargin: '200px' },
  );
  const clock = (seconds) => {
    const [h, m, s] = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map(Math.floor);
    return (h ? [h, String(m).padStart(2, '0')] : [m]).concat(String(s).padStart(2, '0')).join(':');
  };
  for (const film of document.querySelectorAll('video[data-src]')) {
    film.addEventListener('loadedmetadata', () => {
      if (Number.isFinite(film.duration)) film.after(make('i', { textContent: clock(film.duration) }));
    });
    film.addEventListener('error', () => film.remove());
    seen.observe(film);
  }
  for (const picture of document.querySelectorAll('.t img')) {
    const drop = () => picture.remove();
    picture.addEventListener('error', drop);
    if (picture.complete && !picture.naturalWidth) drop();
  }

  const copy = async (url) => {
    try {
      await navigator.clipboard.writeText(url);
    } catch {
      // Outside of HTTPS and localhost there is no clipboard for scripts.
      const field = make('textarea', { value: url });
      (document.querySelector('dialog[open]') ?? document.body).append(field);
      field.select();
      document.execCommand('copy');
      field.remove();
    }
    status.textContent = 'Link copied';
  };
  const copier = (url, className) => {
    const button = make('button', { type: 'button', className, textContent: 'Copy link' });
    button.addEventListener('click', async () => {
      await copy(url());
      button.textContent = 'Copied';
      setTimeout(() => (button.textContent = 'Copy link'), 1500);
    });
    return button;
  };
  for (const card of cards) {
    const button = copier(() => card.querySelector('a').href, 'c');
    button.setAttribute('aria-label', `Copy link of ${card.dataset.name}`);
    card.append(button);
  }
  if (!players.length) return;

  // The player.
  let current = -1;
  const title = make('b');
  const stage = make('div', { className: 's' });
  const button = (text, label, act) => {
    const made = make('button', { type: 'button', textContent: text, title: label });
    made.setAttribute('aria-label', label);
    made.addEventListener('click', act);
    return made;
  };
  const link = () => players[current].querySelector('a').href;
  const download = make('a', { className: 'b', textContent: 'Download' });
  const close = button('✕', 'Close (Escape)', () => dialog.close());
  const bar = make(
    'div',
    { className: 'h' },
    title,
    button('‹', 'Previous (P)', () => show(current - 1)),
    button('›', 'Next (N)', () => show(current + 1)),
    copier(link),
    download,
    close,
  );
  const dialog = make('dialog', {}, bar, stage);
  dialog.setAttribute('aria-label', 'Player');
  document.body.append(dialog);

  const show = (index) => {
    current = (index + players.length) % players.length;
    const { type, name } = players[current].dataset;
    const kind = type.split('/')[0];
    const media = kind === 'image' ? make('img', { alt: name }) : make(kind, { controls: true, autoplay: true });
    if (kind === 'video') media.playsInline = true;
    media.src = link();
    media.addEventListener('error', () => stage.replaceChildren(make('p', { textContent: 'The browser cannot show this.' })));
    // A film that is taken away goes on loading unless its source is emptied.
    const before = stage.firstElementChild;
    stage.replaceChildren(media);
    if (before?.pause) {
      before.removeAttribute('src');
      before.load();
    }
    title.textContent = `${name} (${current + 1} of ${players.length})`;
    download.href = `${link()}?download`;
    history.replaceState(null, '', `#${encodeURIComponent(name)}`);
    if (!dialog.open) dialog.showModal();
    close.focus();
  };
  dialog.addEventListener('close', () => {
    const media = stage.firstElementChild;
    stage.replaceChildren();
    if (media?.pause) {
      media.pause();
      media.removeAttribute('src');
      media.load();
    }
    history.replaceState(null, '', location.pathname + location.search);
    players[current].querySelector('a').focus();
  });

  players.forEach((card, index) =>
    card.querySelector('a').addEventListener('click', (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || event.button) return;
      event.preventDefault();
      show(index);
    }),
  );

  const seek = (media, seconds) => (media.currentTime = Math.max(0, Math.min(media.duration || 0, media.currentTime + seconds)));
  const keys = {
    n: () => show(current + 1),
    p: () => show(current - 1),
    ArrowRight: (media) => (media ? seek(media, 5) : show(current + 1)),
    ArrowLeft: (media) => (media ? seek(media, -5) : show(current - 1)),
    l: (media) => media && seek(media, 10),
    j: (media) => media && seek(media, -10),
    ArrowUp: (media) => media && (media.volume = Math.min(1, media.volume + 0.1)),
    ArrowDown: (media) => media && (media.volume = Math.max(0, media.volume - 0.1)),
    m: (media) => media && (media.muted = !media.muted),
    ' ': (media) => media && (media.paused ? media.play() : media.pause()),
    f: () => (document.fullscreenElement ? document.exitFullscreen() : stage.requestFullscreen()),
    Home: (media) => media && (media.currentTime = 0),
    End: (media) => media && seek(media, Infinity),
  };
  keys.k = keys[' '];
  dialog.addEventListener(
    'keydown',
    (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const media = stage.querySelector('video,audio');
      const isButton = event.target.closest('button,a') && (event.key === ' ' || event.key === 'Enter');
      const digit = /^[0-9]$/.test(event.key) && media && Number.isFinite(media.duration);
      const act = digit ? () => (media.currentTime = (media.duration * event.key) / 10) : keys[event.key];
      if (!act || (isButton && !media)) return;
      event.preventDefault();
      event.stopPropagation();
      act(media);
    },
    true,
  );

  const named = () => {
    const name = decodeURIComponent(location.hash.slice(1));
    const index = players.findIndex((card) => card.dataset.name === name);
    if (index >= 0) show(index);
  };
  addEventListener('hashchange', named);
  named();
})();
