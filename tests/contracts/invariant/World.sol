// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {HookToken} from "../../../contracts/mocks/HookToken.sol";
import {Reentrant} from "../../../contracts/mocks/Reentrant.sol";
import {Open} from "../../../contracts/types/Messages.sol";
import {Session, SettleItem} from "../../../contracts/types/Sessions.sol";
import {Fixture} from "../support/Fixture.sol";

/// @title Who takes part in the campaign, and what must have become of everybody's money
/// @notice The model is kept from wallets (what went in and out) and from what was signed; it never asks the escrow.
abstract contract World is Fixture {
    struct Ghost {
        Open terms;
        bytes32 id;
        uint256 signer; // index of the key
        uint128 deposited;
        uint128 paid;
        uint32 throughSeq;
        uint16 epoch;
        bool closed;
        uint128 returned;
    }

    struct TopUpSent {
        uint256 session;
        uint128 deposited;
    }

    struct CloseSent {
        uint256 session;
        uint128 minPaid;
        bytes consent;
    }

    struct Tally {
        uint256 attempts;
        uint256 successes;
    }

    error Broken(string rule, uint256 got, uint256 expected);

    uint256 internal constant EOA_BUYERS = 3;
    uint256 internal constant KEYS = 3;
    uint256 internal constant NODES = 4;
    uint128 internal constant WALLET = 1e15;

    Actor[] internal buyers; // the last one is a contract that calls back
    Actor[] internal keys;
    address[] internal providers;
    address[] internal settlers;
    Reentrant internal thief;

    Ghost[] internal ghosts;
    SettleItem[] internal itemsSent;
    TopUpSent[] internal topUpsSent;
    CloseSent[] internal closesSent;

    mapping(address buyer => uint256 atoms) internal movedOut;
    mapping(address buyer => uint256 atoms) internal movedBack;
    mapping(uint256 nodeId => uint256 atoms) internal earned;
    mapping(address owner => uint256 atoms) internal paidOut;
    mapping(uint256 nodeId => uint16 epoch) internal epochs;
    uint256 internal feesTaken;
    uint256 internal feesPaid;
    uint256 internal donated;
    uint16 internal feeNow;
    uint16 internal feeNext;
    uint256 internal feeAt;

    uint256 internal time = START;
    string[] public actions;
    mapping(string action => Tally tally) public tallies;

    constructor() {
        setUp();
        for (uint256 i = 0; i < EOA_BUYERS; ++i) {
            buyers.push(_actor(string.concat("buyer ", vm.toString(i))));
            _equip(buyers[i].addr);
        }
        thief = new Reentrant(HookToken(address(token)));
        buyers.push(Actor(address(thief), 0));
        _mint(address(thief), WALLET);
        thief.act(address(token), abi.encodeCall(IERC20.approve, (address(escrow), type(uint256).max)));
        for (uint256 i = 0; i < KEYS; ++i) {
            keys.push(_actor(string.concat("key ", vm.toString(i))));
        }
        providers = [provider, makeAddr("second provider")];
        settlers = [settler, makeAddr("second settler"), makeAddr("third settler")];
        _fund(providers[1]);
        epochs[_serve(providers[1], _nodeSigner(2, 1).addr, settlers[1])] = 1;
        for (uint32 id = 3; id <= NODES; ++id) {
            vm.prank(providers[id % 2]);
            registry.addNode(_nodeSigner(id, 1).addr, 0, settlers[id % 3], "");
            epochs[id] = 1;
        }
        vm.prank(provider);
        registry.rotateNodeKey(nodeId, _nodeSigner(1, 2).addr, 0);
        epochs[1] = 2;
    }

    /// @notice Everything that must hold after every call. Rules are numbered as on the protocol page, section 6.
    function check() external view {
        uint256 sessionsHold = _checkSessions();
        uint256 accountsHold = _checkAccounts();
        (uint256 earningsHold, uint256 ownersGot) = _checkNodes();
        uint256 balance = token.balanceOf(address(escrow));

        _same(escrow.fees() + feesPaid, feesTaken, "4: fees");
        _same(token.balanceOf(treasury), feesPaid, "4: treasury");
        _same(balance, accountsHold + sessionsHold + earningsHold + escrow.fees() + donated, "1: balance = its parts");
        _same(balance, _netIn() + donated - ownersGot - feesPaid, "1: balance = in - out");
    }

    /// @dev 2: every session ends with paid + returned = deposited. 4: only what its key signed and its settler sent
    /// was earned. 3: paid and throughSeq equal the model's, which only ever rise (`_rise`).
    function _checkSessions() private view returns (uint256 hold) {
        for (uint256 i = 0; i < ghosts.length; ++i) {
            Ghost storage ghost = ghosts[i];
            Session memory held = escrow.session(ghost.id, ghost.terms.key);
            _same(held.deposited, ghost.deposited, "4: deposited");
            _same(held.paid, ghost.paid, "3, 4: paid");
            _same(held.throughSeq, ghost.throughSeq, "3: throughSeq");
            _same(held.keyEpoch, ghost.epoch, "4: epoch");
            _same(held.flags, ghost.closed ? 3 : 1, "2: flags");
            if (ghost.closed) _same(held.paid + ghost.returned, held.deposited, "2: paid + returned");
            else hold += held.deposited - held.paid;
        }
    }

    /// @dev 4: an account is what its buyer put in, less what it signed away, plus what came back.
    function _checkAccounts() private view returns (uint256 hold) {
        for (uint256 i = 0; i < buyers.length; ++i) {
            address who = buyers[i].addr;
            uint256 account = escrow.accountOf(who);
            _same(account + movedOut[who], _paidIn(who) + movedBack[who], "4: account");
            hold += account;
        }
    }

    function _checkNodes() private view returns (uint256 hold, uint256 ownersGot) {
        for (uint32 id = 1; id <= NODES; ++id) {
            _same(_earnings(id), earned[id], "4: earnings");
            hold += earned[id];
        }
        for (uint256 i = 0; i < providers.length; ++i) {
            _same(_collectedBy(providers[i]), paidOut[providers[i]], "4: owner");
            ownersGot += paidOut[providers[i]];
        }
    }

    /// @dev Not `assertEq`, which is a call to the test engine each time: this runs some ten million times.
    function _same(uint256 got, uint256 expected, bytes32 rule) internal pure {
        if (got != expected) revert Broken(string(abi.encodePacked(rule)), got, expected);
    }

    /* MODEL */

    function _pushGhost(Open memory terms, uint256 signer) internal {
        Ghost storage ghost = ghosts.push();
        (ghost.terms, ghost.id, ghost.signer) = (terms, escrow.sessionIdOf(terms), signer);
        (ghost.deposited, ghost.epoch) = (terms.amount, epochs[terms.nodeId]);
        movedOut[terms.buyer] += terms.amount;
    }

    function _endGhost(Ghost storage ghost) internal {
        ghost.closed = true;
        ghost.returned = ghost.deposited - ghost.paid;
        movedBack[ghost.terms.buyer] += ghost.returned;
    }

    /// @dev 3: paid and throughSeq never fall.
    function _rise(Ghost storage ghost, uint128 paid, uint32 throughSeq) internal {
        if (paid < ghost.paid || throughSeq < ghost.throughSeq) revert Broken("3: falls", paid, ghost.paid);
        earned[ghost.terms.nodeId] += paid - ghost.paid;
        (ghost.paid, ghost.throughSeq) = (paid, throughSeq);
    }

    function _modelFee() internal view returns (uint16) {
        return time < feeAt ? feeNow : feeNext;
    }

    function _serving(uint32 id) internal view returns (bool) {
        return registry.provider(registry.ownerOf(id)).staked >= MIN_STAKE;
    }

    function _settlerOf(uint32 id) internal view returns (address who) {
        (who,) = escrow.nodeAccount(id);
    }

    /// @dev Everything that a message which must change nothing could have changed.
    function _fingerprint() internal view returns (bytes32 print) {
        print = keccak256(abi.encode(escrow.fees(), escrow.feeBps(), token.balanceOf(address(escrow))));
        for (uint256 i = 0; i < buyers.length; ++i) {
            address who = buyers[i].addr;
            print = keccak256(abi.encode(print, escrow.accountOf(who), token.balanceOf(who)));
        }
        for (uint32 id = 1; id <= NODES; ++id) {
            (address who, uint96 earnings) = escrow.nodeAccount(id);
            print = keccak256(abi.encode(print, who, earnings));
        }
        for (uint256 i = 0; i < ghosts.length; ++i) {
            print = keccak256(abi.encode(print, escrow.session(ghosts[i].id, ghosts[i].terms.key)));
        }
    }

    /* WALLETS */

    function _netIn() internal view returns (uint256 sum) {
        for (uint256 i = 0; i < buyers.length; ++i) {
            sum += _paidIn(buyers[i].addr);
        }
    }

    /// @dev What left a buyer's wallet for good: it never trades with anyone but the escrow.
    function _paidIn(address who) internal view returns (uint256) {
        return WALLET - token.balanceOf(who);
    }

    /// @dev What an owner's wallet got beyond its own stake.
    function _collectedBy(address owner) internal view returns (uint256) {
        uint256 stake = registry.provider(owner).staked + registry.provider(owner).unstaking;
        return token.balanceOf(owner) + stake - FUNDS;
    }

    /* ACTORS */

    function _equip(address who) internal {
        _mint(who, WALLET);
        vm.prank(who);
        token.approve(address(escrow), type(uint256).max);
    }

    /// @dev Every node has a key of its own in every epoch.
    function _nodeSigner(uint32 id, uint16 epoch) internal pure returns (Actor memory) {
        uint256 secret = uint256(keccak256(abi.encode("node", id, epoch)));
        return Actor(vm.addr(secret), secret);
    }

    function _newToken() internal override returns (IERC20) {
        return new HookToken();
    }
}
