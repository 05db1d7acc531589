#!/bin/bash
# Runs inside, once the system is up. Each line of its output is a fact that the test looks for.
say() { echo "fact $*"; }
call() { rm -f /out/code /out/body; systemctl start invoice; say "$1 $(cat /out/code) $(head -c 300 /out/body 2>/dev/null | tr -d '\n')"; }
ip link set lo up
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=Test CA" -keyout /etc/ca.key -out /etc/ca.pem 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj /CN=api.demo.test -keyout /etc/api.key -out /etc/api.csr 2>/dev/null
openssl x509 -req -in /etc/api.csr -CA /etc/ca.pem -CAkey /etc/ca.key -CAcreateserial -days 2 -out /etc/api.pem \
    -extfile <(echo subjectAltName=DNS:api.demo.test) 2>/dev/null
nginx -c /etc/api.conf
restarted() { # Waits until another process than $1 serves.
    for _ in $(seq 400); do
        new=$(systemctl show -p MainPID --value vouchsafe)
        [ "$new" != 0 ] && [ "$new" != "$1" ] && systemctl is-active -q vouchsafe && break
        sleep 0.05
    done
}
xtask() { CARGO_MANIFEST_DIR=/src/xtask CARGO_TARGET_DIR=/src/target /src/target/release/xtask "$@"; }
left() { # What of an installation is there, by a word for each.
    [ -e /usr/bin/vouchsafe ] && echo binary; [ -e /usr/lib/systemd/system/vouchsafe.service ] && echo unit
    [ -e /usr/share/doc/vouchsafe ] && echo examples; [ -e /usr/lib/systemd/system/vouchsafe-trust.path ] && echo trust-unit
    [ -e /etc/systemd/system/vouchsafe-trust.path.d ] && echo watched; [ -e /etc/vouchsafe/trust ] && echo copies
    [ -e /etc/systemd/system/multi-user.target.wants/vouchsafe-trust.path ] && echo enabled
    ls /usr/local/share/ca-certificates | grep -q vouchsafe && echo trusted
    grep -q vouchsafe /out/pip.pem && echo patched
    [ -e /etc/vouchsafe ] && echo config; [ -e /var/lib/vouchsafe ] && echo state
    [ -e /sys/fs/bpf/vouchsafe ] && echo pins; getent group vouchsafe >/dev/null && [ "$1" = purged ] && echo group
    grep -qsx vouchsafe /proc/[0-9]*/comm && echo process
}
xtask install --built >&2; say "install $?"
say "installed $(stat -c '%a %U:%G' /usr/bin/vouchsafe) $(stat -c '%a %U:%G' /usr/lib/systemd/system/vouchsafe.service)" \
    "$(stat -c '%a %U:%G' /var/lib/vouchsafe) $(getent group vouchsafe | cut -d: -f1)"
sed -i 's|^#roots = \[\]|roots = ["/etc/ca.pem"]|' /etc/vouchsafe/vouchsafe.toml
xtask install --built >/out/again 2>&1; say "install-again $? $(grep -c 'kept .*it differs from the default' /out/again)"
systemctl start vouchsafe; say "started $? $(systemctl is-active vouchsafe)"
printf systemd-canary | vouchsafe secret set demo
vouchsafe ca export --out /etc/vs-ca.pem
vouchsafe status >/dev/null; say "status $?"
call call
say "journald $(journalctl -u vouchsafe IDENTITY=invoice-bot VERDICT=allow -o json --no-pager | grep -c invoice.service)"
say "invocation $(vouchsafe audit tail --json 2>/dev/null | grep '"verdict":"allow"' | grep -c "\"invocation\":\"$(cat /out/invocation)\"")"
cd /etc/systemd/system/invoice.service.d
mv network.conf.off network.conf; systemctl daemon-reload
call call-private
systemctl start holder
printf '[Unit]\nJoinsNamespaceOf=holder.service\n' >>network.conf; systemctl daemon-reload
call call-joined
rm network.conf; systemctl daemon-reload; systemctl stop holder; cd /
systemctl reload vouchsafe; say "reload $? $(systemctl is-active vouchsafe)"
echo "nonsense = 1" > /etc/vouchsafe/policies/broken.toml
systemctl reload vouchsafe; say "reload-broken $? $(systemctl is-active vouchsafe)"
call call-after-broken
rm /etc/vouchsafe/policies/broken.toml; systemctl reload vouchsafe
old=$(systemctl show -p MainPID --value vouchsafe)
kill -9 "$old"
restarted "$old"
say "restarted $([ "$new" != "$old" ] && systemctl is-active vouchsafe) $(journalctl -u vouchsafe --no-pager | grep -Ec 'taken_over=1[0-9] ')"
call call-after-kill
# Trust stores follow the CA, and survive what packages do; what follows from that ends by itself.
wait_for() { for _ in $(seq 400); do eval "$1" && return 0; sleep 0.05; done; return 1; }
runs() { journalctl -u vouchsafe-trust.service -o cat --no-pager | grep -c '^Finished'; }
settled() { wait_for "! systemctl is-active -q vouchsafe-trust.service && [ \"\$(systemctl show -p ActiveState --value vouchsafe-trust.service)\" = inactive ]"; }
cp /etc/ssl/certs/ca-certificates.crt /out/pip.pem
vouchsafe trust install >/out/trust 2>&1; trust=$?
vouchsafe trust install --unit invoice --file /out/pip.pem >>/out/trust 2>&1; trust="$trust $?"
say "trust $trust $(systemctl is-active vouchsafe-trust.path) $(systemctl is-enabled vouchsafe-trust.path vouchsafe-trust.service | tr '\n' ' ')"
say "trust-unit $(systemctl show -p Environment invoice | grep -c SSL_CERT_FILE=/etc/vouchsafe/trust/bundle.pem)"
roots=$(grep -c BEGIN /etc/vouchsafe/trust/roots.pem)
cp /var/lib/vouchsafe/ca/ca.pem /out/ca.pem; openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=Vouchsafe CA next" \
    -keyout /dev/null -out /out/next.pem 2>/dev/null
cat /out/next.pem /out/ca.pem >/var/lib/vouchsafe/ca/new; chmod 644 /var/lib/vouchsafe/ca/new; mv /var/lib/vouchsafe/ca/new /var/lib/vouchsafe/ca/ca.pem
wait_for "vouchsafe trust status >/dev/null"
say "trust-rotated $? $(($(grep -c BEGIN /etc/vouchsafe/trust/roots.pem) - roots)) $(($(ls /usr/local/share/ca-certificates | grep -c vouchsafe) - roots))"
cp /out/ca.pem /var/lib/vouchsafe/ca/new; mv /var/lib/vouchsafe/ca/new /var/lib/vouchsafe/ca/ca.pem
wait_for "vouchsafe trust status >/dev/null"; ended=$?
cat /usr/share/ca-certificates/mozilla/*.crt >/out/package.crt; mv /out/package.crt /etc/ssl/certs/ca-certificates.crt
wait_for "vouchsafe trust status >/dev/null"; say "trust-package $ended $?"
grep -v '^#' /usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt >/out/pip.new; mv /out/pip.new /out/pip.pem
wait_for "grep -q 'BEGIN vouchsafe' /out/pip.pem"; say "trust-pip $? $(stat -c '%a %U' /out/pip.pem)"
settled; sleep 3; settled; before=$(runs); sleep 4; after=$(runs)
say "trust-ends $((after - before)) $([ "$after" -lt 16 ] && echo few) $(systemctl --failed --no-legend --plain | grep -c trust)"
# The key of the store, sealed to the machine by its host key: there is no TPM.
vouchsafe secret seal-key >/out/seal 2>&1; sealed=$?
vouchsafe secret seal-key --remove-plain >>/out/seal 2>&1; sealed="$sealed $?"
printf '[Service]\nLoadCredentialEncrypted=vouchsafe-store-key:/etc/credstore.encrypted/vouchsafe-store-key\n' \
    >/etc/systemd/system/vouchsafe.service.d/key.conf
systemctl daemon-reload; systemctl restart vouchsafe
vouchsafe secret seal-key --remove-plain >>/out/seal 2>&1; sealed="$sealed $?"
systemctl restart vouchsafe
say "sealed $sealed $([ -e /var/lib/vouchsafe/store.key ] && echo plain) $(vouchsafe secret list | grep -c '^demo ')"
call call-sealed
systemctl start storm
for _ in 1 2 3; do sleep 0.5; systemctl restart vouchsafe; done
touch /out/calm
for _ in $(seq 200); do systemctl is-active -q storm || break; sleep 0.05; done
say "storm $(grep -c . /out/codes) $(grep -vc '^200$' /out/codes) $(head -c 200 /out/codes.err | tr '\n' ' ')"
systemctl start caller; failed=0; other=0
for _ in 1 2; do
    sleep 1; old=$(systemctl show -p MainPID --value vouchsafe); was=$(stat -Lc %i "/proc/$old/exe")
    cp /usr/bin/vouchsafe /usr/bin/vouchsafe.next && mv /usr/bin/vouchsafe.next /usr/bin/vouchsafe
    systemctl restart vouchsafe || failed=1
    [ "$(stat -Lc %i "/proc/$(systemctl show -p MainPID --value vouchsafe)/exe")" != "$was" ] && other=$((other + 1))
done
for _ in $(seq 400); do systemctl is-active -q caller || break; sleep 0.05; done
say "upgrades $failed $other"
say "caller $(tr -d '\n' </out/caller) $(head -c 200 /out/caller.err)"
say "cut-off $(journalctl -u vouchsafe --no-pager | grep 'drained;' | grep -vc 'cut_off=0')"
kill -9 "$(systemctl show -p MainPID --value vouchsafe)"
call call-while-crashed
vouchsafe audit verify >/dev/null; say "verify $?"
old=$(systemctl show -p MainPID --value vouchsafe)
kill -STOP "$old"
for _ in $(seq 400); do journalctl -u vouchsafe --no-pager | grep -q "Watchdog timeout" && break; sleep 0.05; done
say "watchdog $(journalctl -u vouchsafe --no-pager | grep -c 'Watchdog timeout')"
restarted "$old"
# The credential as a program prints it, in the sandbox of the unit.
printf '#!/bin/sh\n[ $(id -u) = "$1" ] && echo "{\\"token\\": \\"systemd-canary\\"}"\n' >/usr/local/bin/print-demo
chmod 755 /usr/local/bin/print-demo; mv /etc/vouchsafe/credentials/demo.toml /out/demo.toml
exec_as() { # The credential, printed as a user ($1) who must have this id ($2).
    printf '[credential.demo]\nkind = "exec"\ncommand = ["/usr/local/bin/print-demo", "%s"]\n%s\n' "$2" "$1" \
        >/etc/vouchsafe/credentials/demo.toml
    systemctl reload vouchsafe
}
exec_as "" 0; call call-exec
exec_as 'user = "nobody"' 65534; call call-exec-user
printf '[Service]\nCapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL\n' >/etc/systemd/system/vouchsafe.service.d/user.conf
systemctl daemon-reload; systemctl restart vouchsafe; call call-exec-user-may
rm /etc/systemd/system/vouchsafe.service.d/user.conf; mv /out/demo.toml /etc/vouchsafe/credentials/demo.toml
systemctl daemon-reload; systemctl restart vouchsafe
systemctl stop vouchsafe; say "stopped $(systemctl is-active vouchsafe)"
call call-while-stopped
say "canary $(grep -rl systemd-canary /var/lib/vouchsafe /run/vouchsafe /var/log 2>/dev/null | wc -l) $(journalctl --no-pager | grep -c systemd-canary)"
systemctl start vouchsafe
xtask uninstall >&2; say "uninstall $?"
say left $(left)
cat /etc/ca.pem >>/etc/vs-ca.pem; call call-after-uninstall
xtask uninstall --purge >&2; say "purge $?"
say left-after-purge $(left purged)
say done
systemctl poweroff --no-block
