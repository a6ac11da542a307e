use proptest::prelude::*;

use super::{CommandLine, Hints, Program, clean, program};

/// The command line's words, parted by spaces; the executable is the first, under `/usr/bin` unless it is a path.
fn run(command: &str, cwd: Option<&str>, hints: &Hints, manifests: &[(&str, &str)]) -> Program {
    let args: Vec<String> = command.split(' ').map(str::to_owned).collect();
    let exe = if args[0].contains('/') { args[0].clone() } else { format!("/usr/bin/{}", args[0]) };
    let manifest =
        |directory: &str| manifests.iter().find(|(known, _)| *known == directory).map(|(_, name)| (*name).to_owned());
    program(&CommandLine { exe: &exe, args: &args, cwd, hints, manifest: &manifest })
}

/// A process that wrote one string over its arguments.
fn titled(exe: &str, title: &str, cwd: Option<&str>) -> Option<String> {
    let args = [title.to_owned(), String::new()];
    program(&CommandLine { exe, args: &args, cwd, hints: &Hints::default(), manifest: &|_| None }).name
}

fn check(cases: &[(&str, Option<&str>, Option<&str>)]) {
    for (command, cwd, expected) in cases {
        let name = run(command, *cwd, &Hints::default(), &[]).name;
        assert_eq!(name.as_deref(), *expected, "{command} in {cwd:?}");
    }
}

#[test]
fn python() {
    let orders = Some("/srv/orders");
    check(&[
        ("python3 /srv/orders/app.py", None, Some("orders")),
        ("python3.11 -u -W ignore -Xdev /srv/shop/billing.py --port 80", None, Some("billing")),
        ("python3 app.py", orders, Some("orders")),
        ("python3 ./src/main.py", orders, Some("orders")),
        ("python3 app.py", Some("/app"), Some("app")),
        ("python3 app.py", None, Some("app")),
        ("python3 manage.py runserver", orders, Some("orders")),
        ("python3 -m pkg.mod --x", None, Some("pkg.mod")),
        ("python3 -um shop.main", None, Some("shop")),
        ("python3 -mhttp.server 8000", None, Some("http.server")),
        ("python3 -m http.server 8000", None, Some("http.server")),
        ("python3 -m flask --app shop run", None, Some("shop")),
        ("python3 -m flask --app=shop:create_app run", None, Some("shop")),
        ("python3 /usr/local/bin/flask -A src/shop.py run", orders, Some("shop")),
        ("python3 /usr/local/bin/flask run", orders, Some("orders")),
        ("python3 /usr/local/bin/flask run", Some("/app"), Some("flask")),
        ("python3 /usr/local/bin/gunicorn shop:app -b 127.0.0.1:8000", None, Some("shop")),
        (
            "python3 /usr/local/bin/gunicorn -w 4 -k uvicorn.workers.UvicornWorker -b unix:shop.sock shop.main:app",
            None,
            Some("shop"),
        ),
        ("python3 /usr/local/bin/gunicorn --reload shop.wsgi", None, Some("shop")),
        ("python3 /usr/local/bin/gunicorn -b localhost:8000 app:app", orders, Some("orders")),
        ("python3 /usr/local/bin/gunicorn --chdir /srv/stock wsgi", orders, Some("stock")),
        ("python3 /usr/local/bin/gunicorn -n till -b :80 app:app", orders, Some("till")),
        ("python3 /usr/local/bin/gunicorn app.main:app", Some("/app"), Some("app.main")),
        ("python3 -m uvicorn main:app --host 0.0.0.0 --port 8000", orders, Some("orders")),
        ("python3 -m uvicorn --factory shop:create_app", None, Some("shop")),
        ("python3 -m hypercorn orders.asgi:app", None, Some("orders")),
        ("python3 /usr/bin/celery -A shop.tasks worker", None, Some("shop.tasks")),
        ("python3 /usr/local/bin/fastapi run main.py", orders, Some("orders")),
        ("python3 /usr/local/bin/orders-api", None, Some("orders-api")),
        ("/opt/shop/.venv/bin/python -I tool.pyz", None, Some("tool")),
        ("pypy3 /srv/x/shop.py", None, Some("shop")),
        ("python3 -c print(1) x.py", orders, None),
        ("python3 -", orders, None),
        ("python3", orders, None),
        ("python3 -m", orders, None),
        ("python3 -W", orders, None),
    ]);
    assert_eq!(
        run("python3 app.py", Some("/srv/shop"), &Hints::default(), &[]).script.as_deref(),
        Some("/srv/shop/app.py")
    );
    let flask = Hints { flask: Some("shop.web:app".to_owned()), ..Hints::default() };
    assert_eq!(run("python3 -m flask run", None, &flask, &[]).name.as_deref(), Some("shop.web"));
}

/// Command line, working directory, hints, manifests by directory, expected name.
type Case<'a> = (&'a str, &'a str, &'a Hints, &'a [(&'a str, &'a str)], Option<&'a str>);

#[test]
fn node() {
    check(&[
        ("node server.js", Some("/srv/web"), Some("web")),
        ("node /srv/web/dist/index.js", None, Some("web")),
        (
            "node --require ./tracing.js -r dotenv/config --max-old-space-size 4096 /srv/shop/orders.js",
            None,
            Some("orders"),
        ),
        ("node --require=x --inspect=0.0.0.0:9229 orders.mjs", Some("/srv/web"), Some("orders")),
        ("node /srv/web/bin/www", None, Some("web")),
        ("node /srv/web/node_modules/.bin/next start", Some("/srv/web"), Some("web")),
        ("node /app/node_modules/.bin/next start", Some("/app"), Some("next")),
        ("node --watch --env-file .env index.js", Some("/srv/web"), Some("web")),
        ("node -e 1", Some("/srv/web"), None),
        ("node -pe 1", Some("/srv/web"), None),
        ("node", Some("/srv/web"), None),
        ("deno run -A --allow-net -c deno.json main.ts", Some("/srv/web"), Some("web")),
        ("deno run orders.ts", Some("/srv/web"), Some("orders")),
        ("bun run index.ts", Some("/srv/web"), Some("web")),
        ("bun orders.ts", Some("/srv/web"), Some("orders")),
        ("bun run start", Some("/srv/web"), Some("web")),
    ]);
    let none = Hints::default();
    let npm = Hints { npm: Some("@acme/till".to_owned()), ..Hints::default() };
    let pm2 = Hints { pm2: Some("till".to_owned()), ..Hints::default() };
    let cases: [Case<'_>; 9] = [
        ("node server.js", "/app", &none, &[("/app", "orders")], Some("orders")),
        ("node dist/server.js", "/app", &none, &[("/app", "@acme/orders")], Some("orders")),
        ("node orders.js", "/srv/web", &none, &[("/srv/web", "shop")], Some("orders")),
        ("node server.js", "/app", &npm, &[], Some("till")),
        ("node server.js", "/app", &npm, &[("/app", "orders")], Some("orders")),
        ("node server.js", "/srv/web", &none, &[("/srv/web", "server")], Some("web")),
        ("node /app/node_modules/.bin/next start", "/app", &none, &[("/app", "web")], Some("web")),
        ("node --run start", "/app", &none, &[("/app", "web")], Some("web")),
        ("node /usr/lib/node_modules/pm2/lib/ProcessContainerFork.js", "/", &pm2, &[], Some("till")),
    ];
    for (command, cwd, hints, manifests, expected) in cases {
        assert_eq!(run(command, Some(cwd), hints, manifests).name.as_deref(), expected, "{command}");
    }
}

#[test]
fn java() {
    check(&[
        ("java -jar /opt/stock-service-1.2.jar", None, Some("stock-service")),
        ("java -Xmx1g -jar stock-service-1.2.3-SNAPSHOT.jar --server.port=80", None, Some("stock-service")),
        ("java -jar stock-0.0.1-SNAPSHOT-exec.jar", None, Some("stock")),
        ("java -jar log4j-1-bridge.jar", None, Some("log4j-1-bridge")),
        ("java -jar app-2.jar", Some("/opt/stock/lib"), Some("stock")),
        ("java -jar /srv/stock/target/quarkus-app/quarkus-run.jar", None, Some("stock")),
        ("java -jar app.jar", Some("/app"), Some("app")),
        ("java -cp /a.jar:/b.jar com.shop.Main x", None, Some("com.shop.Main")),
        (
            "java --class-path /a.jar -XX:+UseZGC --add-opens java.base/java.lang=ALL-UNNAMED com.shop.Main",
            None,
            Some("com.shop.Main"),
        ),
        ("java -p mods -m shop.orders/com.shop.Main", None, Some("shop.orders")),
        ("java --module=shop.orders", None, Some("shop.orders")),
        ("java Main.java", Some("/srv/stock"), Some("stock")),
        ("java -cp x org.apache.catalina.startup.Bootstrap start", None, Some("tomcat")),
        ("java org.springframework.boot.loader.launch.JarLauncher", Some("/srv/stock"), Some("stock")),
        ("java org.springframework.boot.loader.launch.JarLauncher", Some("/app"), None),
        ("java -Dspring.application.name=till -jar app.jar", None, Some("till")),
        ("java -Dspring.application.name=${APP} -jar stock.jar", None, Some("stock")),
        ("java -jar app.jar --spring.application.name=till", None, Some("till")),
        ("java -Dotel.service.name=a -Dotel.service.name=b -Dspring.application.name=c -jar app.jar", None, Some("b")),
        ("java -version", None, None),
        ("java -jar", None, None),
        ("java -cp", None, None),
    ]);
}

#[test]
fn others() {
    let shop = Some("/srv/shop");
    check(&[
        ("ruby /srv/shop/bin/rails server", shop, Some("shop")),
        ("ruby3.1 -I lib -rjson orders.rb", shop, Some("orders")),
        ("ruby /usr/local/bundle/bin/puma -C config/puma.rb", shop, Some("shop")),
        ("ruby /usr/local/bundle/bin/puma --tag till", shop, Some("till")),
        ("ruby -e 1", shop, None),
        ("perl -w -Ilib orders.pl", shop, Some("orders")),
        ("perl -lne 1", shop, None),
        ("perl /usr/bin/plackup -p 5000 till.psgi", shop, Some("till")),
        ("php -S 0.0.0.0:80 -t public", shop, Some("shop")),
        ("php -S 0.0.0.0:80 router.php", shop, Some("router")),
        ("php -d memory_limit=1G artisan serve", shop, Some("shop")),
        ("php8.2 /srv/shop/bin/console messenger:consume", None, Some("shop")),
        ("php -f orders.php", None, Some("orders")),
        ("php-fpm8.2 -F", None, Some("php-fpm")),
        ("dotnet Orders.dll", None, Some("Orders")),
        ("dotnet exec --runtimeconfig a.json /app/Orders.dll", None, Some("Orders")),
        ("dotnet run --project src/Orders", shop, Some("Orders")),
        ("dotnet run", shop, Some("shop")),
        ("sh /opt/stock/run.sh", None, Some("stock")),
        ("bash -eu -o pipefail backup.sh", None, Some("backup")),
        ("bash -lc while:;do:;done", shop, None),
        ("uwsgi --ini /etc/uwsgi/orders.ini", None, Some("orders")),
        ("uwsgi --module shop.wsgi:application", None, Some("shop")),
        ("beam.smp -W w -- -root /x -sname till@host", None, Some("till")),
        ("/bin/busybox httpd", None, Some("busybox")),
    ]);
}

#[test]
fn executables() {
    check(&[
        ("/usr/sbin/nginx -g daemon", None, Some("nginx")),
        ("apache2 -k start", None, Some("apache2")),
        ("/srv/orders/server", None, Some("orders")),
        ("/srv/shop/target/release/orders", None, Some("orders")),
        ("/srv/shop/target/release/main", None, Some("shop")),
        ("/app/server --port 80", None, Some("server")),
        ("/usr/local/bin/app", None, Some("app")),
        ("/tmp/go-build12/b001/exe/main", None, Some("main")),
        ("redis-server *:6379", None, Some("redis-server")),
    ]);
    let args = ["httpd".to_owned()];
    let line =
        CommandLine { exe: "/bin/busybox", args: &args, cwd: None, hints: &Hints::default(), manifest: &|_| None };
    assert_eq!(program(&line).name.as_deref(), Some("httpd"));
}

#[test]
fn titles() {
    let shop = Some("/srv/shop");
    let cases = [
        ("/usr/bin/python3.11", "gunicorn: worker [orders]", None, Some("orders")),
        ("/usr/bin/python3.11", "gunicorn: master [app:app]", shop, Some("shop")),
        ("/usr/bin/python3.11", "gunicorn: master [shop.wsgi:application]", None, Some("shop")),
        ("/usr/bin/python3", "[celeryd: celery@host:MainProcess] -active- (-A till worker)", None, Some("till")),
        ("/usr/bin/python3", "orders: idle", None, Some("orders")),
        ("/usr/bin/python3", "orders", None, Some("orders")),
        ("/usr/bin/ruby", "puma 6.4.2 (tcp://0.0.0.0:3000) [till]", None, Some("till")),
        ("/usr/bin/ruby", "puma: cluster worker 0: 17 [till]", None, Some("till")),
        ("/usr/bin/ruby", "sidekiq 7.2.0 till [0 of 5 busy]", None, Some("till")),
        ("/usr/bin/ruby", "unicorn worker[0] -c config.rb", shop, Some("shop")),
        ("/usr/bin/ruby", "Passenger RubyApp: /srv/till/public (production)", None, Some("till")),
        ("/usr/sbin/php-fpm8.2", "php-fpm: pool www", None, Some("php-fpm")),
        ("/usr/sbin/php-fpm8.2", "php-fpm: pool till", None, Some("till")),
        ("/usr/sbin/php-fpm8.2", "php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)", None, Some("php-fpm")),
        ("/usr/sbin/nginx", "nginx: worker process", None, Some("nginx")),
        ("/usr/bin/node", "next-server (v14.2.3)", shop, Some("shop")),
        ("/usr/bin/node", "node /srv/web/dist/index.js", None, Some("web")),
        ("/usr/bin/node", "till", None, Some("till")),
        ("/usr/bin/bash", "-bash", shop, None),
        ("/usr/bin/python3", "python3", shop, None),
        ("/usr/bin/python3", "/usr/bin/python3", shop, None),
        ("/usr/bin/python3.11", "python", shop, None),
    ];
    for (exe, title, cwd, expected) in cases {
        assert_eq!(titled(exe, title, cwd).as_deref(), expected, "{exe} {title}");
    }
}

#[test]
fn languages() {
    let cases = [
        ("python3 x.py", Some("python")),
        ("node x.js", Some("nodejs")),
        ("java -jar x.jar", Some("java")),
        ("ruby x.rb", Some("ruby")),
        ("php x.php", Some("php")),
        ("php-fpm8.2", Some("php")),
        ("dotnet X.dll", Some("dotnet")),
        ("bun x.ts", None),
        ("sh x.sh", None),
        ("nginx", None),
    ];
    for (command, expected) in cases {
        assert_eq!(run(command, None, &Hints::default(), &[]).language, expected, "{command}");
    }
}

#[test]
fn names_are_clean() {
    assert_eq!(clean(" a\n\u{7}b "), Some("ab".to_owned()));
    assert_eq!(clean("\u{0} \t"), None);
    assert_eq!(clean(&"é".repeat(300)).map(|name| name.len()), Some(254));
}

proptest! {
    #[test]
    fn no_command_line_makes_it_panic(
        exe in prop_oneof![
            "(/[a-z]{0,3})*/(python3|node|java|ruby|php-fpm|php|perl|dotnet|bash|deno|bun|mono|uwsgi|beam\\.smp|busybox)",
            ".{0,20}",
        ],
        args in prop::collection::vec(
            prop_oneof![
                "-{0,2}[a-zA-Z=:./@-]{0,12}",
                "(-jar|-m|-cp|-A|--app|-c|--|-|-S|-t|run|gunicorn|/x/node_modules/y|gunicorn: worker \\[.{0,3}\\]|sidekiq 7 x)",
                ".{0,20}",
            ],
            0..8,
        ),
        cwd in prop::option::of("(/[.a-z]{0,5}){0,4}|.{0,6}"),
        package in prop::option::of(".{0,10}"),
    ) {
        let hints = Hints { flask: package.clone(), npm: package.clone(), pm2: None, spring: package.clone() };
        let line = CommandLine { exe: &exe, args: &args, cwd: cwd.as_deref(), hints: &hints, manifest: &|_| package.clone() };
        if let Some(name) = program(&line).name {
            prop_assert!(!name.trim().is_empty() && name.len() <= super::NAME);
        }
    }
}
